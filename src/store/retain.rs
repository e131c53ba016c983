//! Retention: what is older than it may be is dropped. Whole chunks of a hypertable at once, which every build of
//! TimescaleDB can; rows of an ordinary table in small steps, so that no batch waits long.

mod postgres;
mod sqlite;

use std::time::Duration;

use super::{DatabaseUrl, StoreError};

/// How long to keep what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Positions, by device time; `None` keeps them for ever.
    pub positions: Option<Duration>,
    /// Quarantined records, by the time when they first came; `None` keeps them for ever.
    pub quarantine: Option<Duration>,
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Chunks of the hypertable. The rows in them are not counted, as they are not read.
    pub chunks: u64,
    /// Rows of an ordinary table.
    pub positions: u64,
    /// Quarantined records.
    pub quarantined: u64,
}

impl Retention {
    /// Whether there is anything to do.
    #[must_use]
    pub const fn keeps_all(&self) -> bool {
        self.positions.is_none() && self.quarantine.is_none()
    }
}

impl Retained {
    /// Whether nothing was old enough.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Drops what is older than asked for, by the clock of the database server, or of this machine for a SQLite file. A chunk
/// goes when all of it is too old. `latest_positions` keeps each device's newest position, however old.
///
/// # Errors
/// What was dropped until then stays dropped; running it again goes on from there.
pub async fn retain(url: &DatabaseUrl, retention: &Retention) -> Result<Retained, StoreError> {
    if retention.keeps_all() {
        return Ok(Retained::default());
    }
    match url {
        DatabaseUrl::Postgres(url) => postgres::retain(url, retention).await,
        DatabaseUrl::Sqlite(path) => sqlite::retain(path, retention).await,
    }
}

const CONNECTING: &str = "connecting to the database for retention";
const DROPPING: &str = "dropping old positions";
const CLEARING: &str = "clearing the quarantine";
/// Rows in one transaction: some ten milliseconds, in which writers wait for nothing but the disk.
const STEP: i64 = 5_000;
/// Between two transactions, so that a writer who waits for the same lock gets it first.
const PAUSE: Duration = Duration::from_millis(20);
