//! Records on their way into quarantine. The same bytes of a device go there once, with a count. A device gets at most
//! as many records of an hour as quarantine holds of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::store::model::batch::Quarantined;
use crate::store::model::digest::digest;

/// Maximum of quarantined records per device and hour of receive time; `None` is no maximum. Records over it are only
/// counted.
pub type QuarantineCap = Option<u32>;

/// Bytes, and how often they came.
#[derive(Debug)]
pub struct QuarantineInput<'a> {
    /// The record that came first.
    pub record: &'a Quarantined,
    /// Their SHA-256.
    pub digest: [u8; 32],
    /// How often they came.
    pub seen: i64,
}

impl QuarantineInput<'_> {
    /// Device and hour of receive time.
    pub(crate) fn hour(&self) -> (u64, i64) {
        hour_of(self.record)
    }
}

/// Returns each record once, and the number of records over the cap. That number does not consider what quarantine
/// holds already: the database counts that. So a batch of one device's rubbish costs the database no more than the cap.
pub(crate) fn inputs(records: &[Quarantined], cap: QuarantineCap) -> (Vec<QuarantineInput<'_>>, u64) {
    let most = cap.map_or(usize::MAX, |cap| usize::try_from(cap).unwrap_or(usize::MAX));
    let (mut offered, mut over): (Vec<QuarantineInput<'_>>, u64) = (Vec::new(), 0);
    let mut places: HashMap<_, usize> = HashMap::new();
    let mut hours: HashMap<_, usize> = HashMap::new();
    for record in records {
        let digest = digest(&record.bytes);
        match places.entry((record.imei, digest)) {
            Entry::Occupied(place) => {
                if let Some(known) = offered.get_mut(*place.get()) {
                    known.seen += 1;
                }
            }
            Entry::Vacant(place) => {
                let kept = hours.entry(hour_of(record)).or_default();
                if *kept < most {
                    *kept += 1;
                    place.insert(offered.len());
                    offered.push(QuarantineInput { record, digest, seen: 1 });
                } else {
                    over += 1;
                }
            }
        }
    }
    (offered, over)
}

fn hour_of(record: &Quarantined) -> (u64, i64) {
    (record.imei.get(), record.received_at_us.div_euclid(HOUR_US))
}

/// Microseconds.
pub(crate) const HOUR_US: i64 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use teltonika_codecs::Imei;

    use super::*;
    use crate::store::model::batch::QuarantineReason;
    use odograph_journal::Position;

    fn record(device: u64, hour: i64, content: u8) -> Quarantined {
        Quarantined {
            imei: Imei::try_from(device).unwrap(),
            reason: QuarantineReason::TimeWindow,
            detail: String::new(),
            received_at_us: hour * HOUR_US + 5,
            frame: Position(0),
            record_index: None,
            codec: 8,
            bytes: vec![content],
        }
    }

    #[test]
    fn of_a_device_and_hour_so_many_are_offered_and_repeats_cost_nothing() {
        let records = [
            record(1, 0, 1),
            record(1, 0, 2),
            record(1, 0, 1),
            record(1, 0, 3),
            record(1, 0, 2),
            record(1, 0, 3),
            record(1, 1, 4),
            record(2, 0, 1),
        ];
        let seen = |cap| {
            let (offered, over) = inputs(&records, cap);
            (offered.iter().map(|one| (one.hour(), one.record.bytes[0], one.seen)).collect::<Vec<_>>(), over)
        };
        let (two, over) = seen(Some(2));
        assert_eq!(two, [((1, 0), 1, 2), ((1, 0), 2, 2), ((1, 1), 4, 1), ((2, 0), 1, 1)]);
        assert_eq!(over, 2);
        let (all, over) = seen(None);
        assert_eq!((all.len(), over), (5, 0));
    }
}
