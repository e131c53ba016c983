//! The newest position of each device since the last time that they were written. Written in every batch they would halve
//! the rate of a large fleet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::store::{Row, Rows};

/// Collects newest positions between two writings.
#[derive(Default)]
pub struct NewestPositions {
    devices: HashMap<u64, Newest, RandomState>,
}

struct Newest {
    row: Row,
    io: String,
}

impl NewestPositions {
    /// Takes a row into account: by device time, never by arrival, as trackers send the newest first.
    pub fn see(&mut self, row: &Row, io: &str) {
        if !counts(row) {
            return;
        }
        match self.devices.entry(row.imei.get()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Newest { row: row.clone(), io: io.to_owned() });
            }
            Entry::Occupied(mut occupied) => {
                let newest = occupied.get_mut();
                if (newest.row.ts_ms, newest.row.fingerprint) < (row.ts_ms, row.fingerprint) {
                    newest.row = row.clone();
                    io.clone_into(&mut newest.io);
                }
            }
        }
    }

    /// Whether there is anything to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Adds all of them to a batch. They stay here until [`NewestPositions::written`].
    pub fn fill(&self, rows: &mut Rows) {
        for Newest { row, io } in self.devices.values() {
            rows.push(row, &[], |text| text.push_str(io));
        }
    }

    /// Forgets what was written.
    pub fn written(&mut self) {
        self.devices.clear();
    }
}

/// Only valid, not faulty, and not further ahead of the receive time than clocks are apart: one that runs ahead would hide
/// all that follows.
fn counts(row: &Row) -> bool {
    let ahead_us = row.ts_ms.saturating_mul(1000).saturating_sub(row.received_at_us);
    row.valid && !row.faulty && i128::from(ahead_us) <= AHEAD_MAX.as_micros().cast_signed()
}

const AHEAD_MAX: Duration = Duration::from_mins(5);
