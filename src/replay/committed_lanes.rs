//! Which entries of a journal the lanes had committed when a replay began.

use crate::lane::lane_of;
use crate::store::LanePosition;
use odograph_journal::{Entry, Position};

/// What the lanes had committed when it began.
pub(super) struct CommittedLanes {
    /// By lane.
    lanes: Vec<Position>,
    furthest: Position,
}

impl CommittedLanes {
    pub(super) fn new(stand: Vec<LanePosition>) -> Option<Self> {
        let number = stand.iter().map(|lane| lane.lanes).max()?.max(1);
        let mut lanes = vec![Position(0); usize::from(number)];
        for LanePosition { number, position, .. } in stand {
            if let Some(lane) = lanes.get_mut(usize::from(number)) {
                *lane = position;
            }
        }
        let furthest = lanes.iter().copied().max().unwrap_or_default();
        Some(Self { lanes, furthest })
    }

    pub(super) fn holds(&self, entry: &Entry<'_>) -> bool {
        let lanes = u16::try_from(self.lanes.len()).unwrap_or(u16::MAX);
        let lane = usize::from(lane_of(entry.entry.imei, lanes));
        self.lanes.get(lane).is_some_and(|committed| entry.position < *committed)
    }

    #[expect(clippy::cast_precision_loss, reason = "a bar")]
    pub(super) fn share(&self, begin: u64, at: Position) -> f64 {
        let all = self.furthest.0.saturating_sub(begin).max(1);
        at.0.saturating_sub(begin) as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use teltonika_codecs::Imei;

    use super::*;
    use odograph_journal::{EntryKind, NewEntry};

    #[test]
    fn an_entry_is_committed_where_its_own_lane_has_passed_it() {
        let stand = |number, position| LanePosition { number, lanes: 2, position: Position(position) };
        let committed = CommittedLanes::new(vec![stand(0, 100), stand(1, 50)]).unwrap();
        let of_lane = |lane| {
            let imeis = (1..100).map(|number| Imei::try_from(number).unwrap());
            imeis.into_iter().find(|imei| lane_of(*imei, 2) == lane).unwrap()
        };
        let holds = |lane, position| {
            let entry =
                NewEntry { kind: EntryKind::Frame, imei: of_lane(lane), received_at_us: 0, records: 1, bytes: &[] };
            committed.holds(&Entry { position: Position(position), tag: 0, entry })
        };
        assert!(holds(0, 99) && !holds(0, 100));
        assert!(holds(1, 49) && !holds(1, 50));
        assert!(CommittedLanes::new(Vec::new()).is_none());
        let half = CommittedLanes::new(vec![stand(1, 50)]).unwrap();
        assert_eq!(half.lanes, [Position(0), Position(50)], "a lane that is not known has committed nothing");
    }
}
