//! What a replay is asked for, and what it reports.

use super::decoder::RefusedRecords;
use crate::ingest::drain::TimeWindow;
use crate::store::{Differences, RewriteReport, StoreError};
use odograph_journal::{Filter, JournalId, OpenError};

/// What to decode again, and how.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRequest {
    /// Which entries.
    pub filter: Filter,
    /// Plausible device times.
    pub window: TimeWindow,
    /// Whether to write.
    pub mode: ReplayMode,
}

/// Whether to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayMode {
    /// Make the tables follow.
    Write,
    /// Say what would change.
    Compare,
}

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub struct ReplayReport {
    /// Frames and messages that were decoded again.
    pub entries: u64,
    /// What became of their records.
    pub rewritten: RewriteReport,
    /// Records and frames that are no rows by today's program and settings.
    pub refused: RefusedRecords,
    /// How rows would change, if they were compared only.
    pub differences: Differences,
    /// Wanted entries that the lanes have not committed yet.
    pub left: u64,
    /// Segments that were given away before they were read.
    pub given_away: u64,
    /// Damaged places of the journal that were passed over.
    pub damages: u64,
    /// Receive time of the last entry that is settled, microseconds.
    pub reached_us: Option<i64>,
    /// It was stopped before the end.
    pub stopped: bool,
    /// Part of what is committed that was read, 0 to 1.
    pub share: f64,
}

impl ReplayReport {
    /// Records that were refused, for whatever reason.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.rewritten.refused + self.refused.undecodable + self.refused.time_window
    }
}

/// Why a replay ends early. What was committed until then is right.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The journal's files cannot be read.
    #[error("cannot read the journal")]
    Journal(#[from] OpenError),
    /// The database fails.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// Nothing of this journal is in this database.
    #[error(
        "this database knows nothing of journal {0}: serve has not written from it there. Is DATABASE_URL the one of serve, and \
         did the database answer since the journal was made?"
    )]
    Unknown(JournalId),
}
