//! The checkpoint as a fence: whether a lane may commit, decided by what the database holds under lock.
//!
//! Every transaction reads its lane's checkpoint row and locks it. Only where that row stands where the lane stands may
//! anything be written; so a commit whose answer was lost is found, a database that went back is noticed, and a second
//! owner of the journal is stopped.

use super::committed::Committed;
use crate::lane::Lane;
use odograph_journal::{Mark, Position};

/// Where a lane stands, as the database knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything before is committed.
    pub mark: Mark,
    /// Everything before is also seen in the latest positions.
    pub latest: Position,
}

/// The part of the journal that a batch covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSpan {
    /// The lane's cursor: where the batch begins.
    pub from: Mark,
    /// Where the lane stands once the batch is committed.
    pub to: Checkpoint,
}

/// What came of offering a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is committed: now, or by an earlier attempt whose answer was lost.
    Committed(Committed),
    /// Nothing was written. The database went back (failover, restore): go on from there.
    WentBack(Checkpoint),
    /// Nothing was written. Another process owns this journal: stop.
    Fenced,
}

/// A commit that was sent and not answered.
#[derive(Clone, Debug)]
pub(crate) struct CommitInDoubt {
    pub(crate) to: Mark,
    pub(crate) committed: Committed,
}

/// The checkpoint row of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// How many lanes the journal had when it was written.
    pub lanes: u16,
    /// The lane's checkpoint.
    pub checkpoint: Checkpoint,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FenceDecision {
    /// Write.
    Go,
    /// Write nothing, and this is the outcome.
    Settled(CommitOutcome),
}

/// Decides. `stored` must have been read under its lock, which waits until the backend of an earlier attempt has ended: a
/// plain read can still show the old place while the lost transaction commits a moment later.
pub(crate) fn decide(
    lane: Lane,
    span: &BatchSpan,
    doubt: Option<&CommitInDoubt>,
    stored: Option<StoredCheckpoint>,
) -> FenceDecision {
    let Some(StoredCheckpoint { lanes, checkpoint }) = stored else {
        // It was there when the lane began: the database is from before.
        return FenceDecision::Settled(CommitOutcome::WentBack(Checkpoint::default()));
    };
    if lanes != lane.lanes {
        return FenceDecision::Settled(CommitOutcome::Fenced);
    }
    if checkpoint.mark == span.from {
        return FenceDecision::Go;
    }
    match doubt {
        Some(doubt) if doubt.to == checkpoint.mark && doubt.to == span.to.mark => {
            FenceDecision::Settled(CommitOutcome::Committed(doubt.committed.clone()))
        }
        _ if checkpoint.mark.position < span.from.position => {
            FenceDecision::Settled(CommitOutcome::WentBack(checkpoint))
        }
        // Ahead of us, or at our place by another way.
        _ => FenceDecision::Settled(CommitOutcome::Fenced),
    }
}

/// Where a lane begins, given all rows of its journal in the order of their lanes, and whether the rows must be made: a
/// new journal begins at its beginning, and with another number of lanes all go back to the one furthest behind.
///
/// One mark can vouch for all lanes only where the same opening of the journal wrote them all. Else two copies of the journal
/// may have written them, and what the one furthest behind has done, others have not: the tag is none then, so that the
/// journal takes a new id and is drained again.
pub(crate) fn starting_checkpoint(lane: Lane, found: &[StoredCheckpoint]) -> (Checkpoint, bool) {
    let complete = found.len() == usize::from(lane.lanes) && found.iter().all(|row| row.lanes == lane.lanes);
    match found.get(usize::from(lane.number)) {
        Some(own) if complete => (own.checkpoint, false),
        _ => {
            let behind = found.iter().map(|row| row.checkpoint).min_by_key(|at| at.mark.position).unwrap_or_default();
            let latest = found.iter().map(|row| row.checkpoint.latest).min().unwrap_or_default();
            let of_one_opening = found.iter().all(|row| row.checkpoint.mark.is_of_opening(behind.mark));
            let tag = if of_one_opening { behind.mark.tag } else { Mark::START.tag };
            (Checkpoint { mark: Mark { tag, ..behind.mark }, latest }, true)
        }
    }
}

#[cfg(test)]
mod tests {
    use odograph_journal::JournalId;

    use super::*;
    use crate::store::model::committed::WritePath;

    fn at(position: u64, tag: i64) -> Mark {
        Mark { position: Position(position), tag }
    }

    fn stored(lanes: u16, position: u64, tag: i64) -> StoredCheckpoint {
        StoredCheckpoint { lanes, checkpoint: Checkpoint { mark: at(position, tag), latest: Position(0) } }
    }

    #[test]
    fn only_the_lane_that_stands_where_the_database_stands_may_write() {
        let lane = Lane::only(JournalId::random());
        let span = BatchSpan { from: at(10, 7), to: Checkpoint { mark: at(20, 7), latest: Position(20) } };
        let committed = Committed::new(3, 1, Vec::new(), WritePath::Copy);
        let doubt = CommitInDoubt { to: at(20, 7), committed: committed.clone() };
        let other_doubt = CommitInDoubt { to: at(15, 7), committed: committed.clone() };
        let decide = |doubt, stored| decide(lane, &span, doubt, stored);
        let back = |position, tag| {
            let checkpoint = Checkpoint { mark: at(position, tag), latest: Position(0) };
            FenceDecision::Settled(CommitOutcome::WentBack(checkpoint))
        };
        let fenced = FenceDecision::Settled(CommitOutcome::Fenced);

        assert_eq!(decide(None, Some(stored(1, 10, 7))), FenceDecision::Go);
        assert_eq!(decide(Some(&doubt), Some(stored(1, 10, 7))), FenceDecision::Go, "the lost commit did not happen");
        assert_eq!(
            decide(Some(&doubt), Some(stored(1, 20, 7))),
            FenceDecision::Settled(CommitOutcome::Committed(committed))
        );
        assert_eq!(decide(None, Some(stored(1, 20, 7))), fenced, "somebody else wrote that");
        assert_eq!(decide(Some(&other_doubt), Some(stored(1, 15, 7))), fenced, "not the batch that is offered");
        assert_eq!(decide(None, Some(stored(1, 9, 7))), back(9, 7));
        assert_eq!(decide(Some(&doubt), Some(stored(1, 9, 3))), back(9, 3));
        assert_eq!(decide(None, None), back(0, 0));
        assert_eq!(decide(None, Some(stored(1, 10, 8))), fenced, "the same place by another way");
        assert_eq!(decide(Some(&doubt), Some(stored(1, 20, 8))), fenced, "the same place by another way");
        assert_eq!(decide(None, Some(stored(2, 10, 7))), fenced, "other lanes");
    }

    #[test]
    fn another_number_of_lanes_begins_at_the_one_furthest_behind() {
        // The upper half names the opening, the lower half is a checksum.
        let tag = |opening: i64, position: u64| opening << 32 | position.cast_signed();
        let row = |lanes, position, latest| StoredCheckpoint {
            lanes,
            checkpoint: Checkpoint { mark: at(position, tag(7, position)), latest: Position(latest) },
        };
        let lane = |number, lanes| Lane { journal: JournalId::random(), number, lanes };
        let checkpoint =
            |position, latest| Checkpoint { mark: at(position, tag(7, position)), latest: Position(latest) };
        let two = [row(2, 30, 25), row(2, 20, 22)];
        assert_eq!(starting_checkpoint(lane(0, 2), &two), (checkpoint(30, 25), false));
        assert_eq!(starting_checkpoint(lane(1, 2), &two), (checkpoint(20, 22), false));
        assert_eq!(starting_checkpoint(lane(0, 1), &two), (checkpoint(20, 22), true));
        assert_eq!(starting_checkpoint(lane(2, 3), &two), (checkpoint(20, 22), true));
        assert_eq!(starting_checkpoint(lane(1, 2), &two[..1]), (checkpoint(30, 25), true), "a row is missing");
        assert_eq!(starting_checkpoint(lane(0, 1), &[]), (Checkpoint::default(), true));
        let copies = [
            StoredCheckpoint { checkpoint: Checkpoint { mark: at(30, tag(9, 30)), latest: Position(25) }, ..two[0] },
            two[1],
        ];
        let nobodys = Checkpoint { mark: at(20, 0), latest: Position(22) };
        assert_eq!(starting_checkpoint(lane(0, 1), &copies), (nobodys, true), "two copies of a journal wrote them");
        assert_eq!(starting_checkpoint(lane(1, 2), &copies), (checkpoint(20, 22), false));
    }
}
