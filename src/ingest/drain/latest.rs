//! The latest position of each device since they were last written. Written in every batch, they would halve the rate of a large
//! fleet. Positions of the batch being built are kept apart until it is committed: a row that is not in the table cannot be the
//! latest.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::store::{Key, Row, Rows};

/// Collects latest positions between two writes.
#[derive(Default)]
pub struct LatestPositions {
    committed: ByDevice,
    in_batch: ByDevice,
}

type ByDevice = HashMap<u64, LatestPosition, RandomState>;

struct LatestPosition {
    row: Row,
    io: String,
}

impl LatestPositions {
    /// Considers a row of the batch, by device time and never by arrival: trackers send the newest record first. Returns
    /// whether the row may be a latest position at all.
    pub fn consider(&mut self, row: &Row, io: &str) -> bool {
        if !may_be_latest(row) {
            return false;
        }
        match self.in_batch.entry(row.imei.get()) {
            Entry::Vacant(vacant) => {
                vacant.insert(LatestPosition { row: row.clone(), io: io.to_owned() });
            }
            Entry::Occupied(mut occupied) => {
                let newest = occupied.get_mut();
                if newest.at() < (row.ts_ms, row.fingerprint) {
                    newest.row = row.clone();
                    io.clone_into(&mut newest.io);
                }
            }
        }
        true
    }

    /// Whether there is anything to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.in_batch.is_empty()
    }

    /// Adds all of them to a batch, up to two per device: the store takes the later one.
    pub fn fill(&self, rows: &mut Rows) {
        for LatestPosition { row, io } in self.committed.values().chain(self.in_batch.values()) {
            rows.push(row, &[], |text| text.push_str(io));
        }
    }

    /// The batch was committed: with the latest positions, or they stay for a later one. Rows that the database refused do not count.
    pub fn committed(&mut self, written: bool, refused: &[Key]) {
        if written {
            self.committed.clear();
            self.in_batch.clear();
            return;
        }
        let refused: HashSet<_> = refused.iter().collect();
        for (imei, newest) in self.in_batch.drain().filter(|(_, newest)| !refused.contains(&newest.row.key())) {
            match self.committed.entry(imei) {
                Entry::Vacant(vacant) => {
                    vacant.insert(newest);
                }
                Entry::Occupied(mut occupied) if occupied.get().at() < newest.at() => {
                    occupied.insert(newest);
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// Forgets the positions of an abandoned batch.
    pub fn abandon(&mut self) {
        self.in_batch.clear();
    }
}

impl LatestPosition {
    fn at(&self) -> (i64, i32) {
        (self.row.ts_ms, self.row.fingerprint)
    }
}

/// Whether a row may be a latest position: valid, not faulty, and not ahead of the receive time by more than clocks differ. A
/// position from the future would hide all that follow.
fn may_be_latest(row: &Row) -> bool {
    row.valid && !row.faulty && !is_ahead(row)
}

/// Whether the device's clock was ahead of the receive time by more than clocks differ.
pub(super) fn is_ahead(row: &Row) -> bool {
    let ahead_us = row.ts_ms.saturating_mul(1000).saturating_sub(row.received_at_us);
    i128::from(ahead_us) > AHEAD_MAX.as_micros().cast_signed()
}

const AHEAD_MAX: Duration = Duration::from_mins(5);
