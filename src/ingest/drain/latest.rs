//! The newest position of each device since the last time that they were written. Written in every batch they would halve
//! the rate of a large fleet. Those of the batch being built stand apart until it is committed: a position that is not in
//! the table is nobody's newest.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::store::{Key, Row, Rows};

/// Collects newest positions between two writings.
#[derive(Default)]
pub struct NewestPositions {
    committed: Devices,
    in_batch: Devices,
}

type Devices = HashMap<u64, Newest, RandomState>;

struct Newest {
    row: Row,
    io: String,
}

impl NewestPositions {
    /// Takes a row of the batch into account: by device time, never by arrival, as trackers send the newest first. Says
    /// whether the row can be a newest position at all.
    pub fn see(&mut self, row: &Row, io: &str) -> bool {
        if !counts(row) {
            return false;
        }
        match self.in_batch.entry(row.imei.get()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Newest { row: row.clone(), io: io.to_owned() });
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

    /// Adds all of them to a batch, up to two of a device: the store takes the later one.
    pub fn fill(&self, rows: &mut Rows) {
        for Newest { row, io } in self.committed.values().chain(self.in_batch.values()) {
            rows.push(row, &[], |text| text.push_str(io));
        }
    }

    /// The batch was committed: with them, or they are kept for a later one. What the database refused is none.
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

    /// The batch will not be committed as it is.
    pub fn abandon(&mut self) {
        self.in_batch.clear();
    }
}

impl Newest {
    fn at(&self) -> (i64, i32) {
        (self.row.ts_ms, self.row.fingerprint)
    }
}

/// Only valid, not faulty, and not further ahead of the receive time than clocks are apart: one that runs ahead would hide
/// all that follows.
fn counts(row: &Row) -> bool {
    let ahead_us = row.ts_ms.saturating_mul(1000).saturating_sub(row.received_at_us);
    row.valid && !row.faulty && i128::from(ahead_us) <= AHEAD_MAX.as_micros().cast_signed()
}

const AHEAD_MAX: Duration = Duration::from_mins(5);
