//! Retention: what is older than it may be is dropped. Whole chunks of a hypertable, one at a time, which every build of
//! TimescaleDB can; rows of an ordinary table in small steps, so that no batch waits long.
//!
//! For retention time stands still at the oldest frame that waits in the journal: what is young enough on arrival does not find
//! its chunk gone, however long the database was away. And two clocks have to agree, so that a wrong one empties no table.

use std::time::{Duration, SystemTime};

use super::model::retention_clock::{RetentionClock, RetentionRefusal};
use super::{DatabaseUrl, StoreError, postgres, sqlite};

/// How long to keep what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Positions, by device time, and messages, by receive time; `None` keeps them for ever.
    pub positions: Option<Duration>,
    /// Quarantined records, by the time when they first came; `None` keeps them for ever.
    pub quarantine: Option<Duration>,
}

/// What was dropped, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Chunks of the hypertable. The rows in them are not counted, as they are not read.
    pub chunks: Vec<DroppedChunk>,
    /// Rows of an ordinary table.
    pub positions: u64,
    /// Messages of devices.
    pub messages: u64,
    /// Quarantined records.
    pub quarantined: u64,
    /// Why something is still there that is old enough to go.
    pub refused: Option<RetentionRefusal>,
}

/// A chunk that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedChunk {
    /// Its name, with its schema.
    pub name: String,
    /// The first device time that it could hold.
    pub from: SystemTime,
    /// The first one behind it.
    pub to: SystemTime,
}

impl Retention {
    /// Whether there is anything to do.
    #[must_use]
    pub const fn keeps_all(&self) -> bool {
        self.positions.is_none() && self.quarantine.is_none()
    }
}

impl RetentionReport {
    /// Whether nothing was old enough.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Drops what is older than asked for at the present moment. A chunk goes when all of it is too old. `latest_positions` keeps
/// each device's newest position, however old.
///
/// # Errors
/// What was dropped until then stays dropped; running it again goes on from there.
pub async fn retain(
    url: &DatabaseUrl,
    retention: &Retention,
    present: &RetentionClock,
) -> Result<RetentionReport, StoreError> {
    if retention.keeps_all() {
        return Ok(RetentionReport::default());
    }
    match url {
        DatabaseUrl::Postgres(url) => postgres::retain::retain(url, retention, present).await,
        DatabaseUrl::Sqlite(path) => sqlite::retain::retain(path, retention, present).await,
    }
}

pub(crate) const CONNECTING: &str = "connecting to the database for retention";
pub(crate) const DROPPING: &str = "dropping old positions";
pub(crate) const FORGETTING: &str = "deleting old messages";
pub(crate) const CLEARING: &str = "clearing the quarantine";
/// Rows in one transaction: some ten milliseconds, in which writers wait for nothing but the disk.
pub(crate) const STEP: i64 = 5_000;
/// Between two transactions, so that a writer who waits for the same lock gets it first.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
