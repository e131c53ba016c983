//! Retention: how long to keep what, and the report of one run.
//!
//! A run deletes what has expired: whole chunks of a hypertable, one at a time, which every build of TimescaleDB
//! supports, and rows of an ordinary table in small steps, so that no batch waits long. Which moment counts as now is
//! decided by [`RetentionClock`](super::retention_clock::RetentionClock).

use std::time::{Duration, SystemTime};

use super::retention_clock::RetentionRefusal;

/// How long to keep what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Positions, by device time, and messages, by receive time; `None` keeps them forever.
    pub positions: Option<Duration>,
    /// Quarantined records, by the time when they were first received; `None` keeps them forever.
    pub quarantine: Option<Duration>,
}

/// What a run deleted, and what it did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Chunks of the hypertable. Their rows are not read, so they are not counted.
    pub chunks: Vec<DroppedChunk>,
    /// Rows of an ordinary table.
    pub positions: u64,
    /// Messages of devices.
    pub messages: u64,
    /// Quarantined records.
    pub quarantined: u64,
    /// Why something that has expired is still there.
    pub refused: Option<RetentionRefusal>,
}

/// A chunk that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedChunk {
    /// Its name, with its schema.
    pub name: String,
    /// The first device time of its range.
    pub from: SystemTime,
    /// The first device time after its range.
    pub to: SystemTime,
}

impl Retention {
    /// Whether nothing ever expires.
    #[must_use]
    pub const fn keeps_all(&self) -> bool {
        self.positions.is_none() && self.quarantine.is_none()
    }
}

impl RetentionReport {
    /// Whether nothing had expired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

pub(crate) const CONNECTING_FOR_RETENTION: &str = "connecting to the database for retention";
pub(crate) const DROPPING_POSITIONS: &str = "dropping old positions";
pub(crate) const DELETING_MESSAGES: &str = "deleting old messages";
pub(crate) const CLEARING_QUARANTINE: &str = "clearing the quarantine";
/// Rows that one transaction deletes: about ten milliseconds, in which writers wait for nothing but the disk.
pub(crate) const RETENTION_STEP_ROWS: i64 = 5_000;
/// Between two transactions, so that a writer that waits for the same lock gets it first.
pub(crate) const RETENTION_PAUSE: Duration = Duration::from_millis(20);
