//! The stores: they know rows, not frames. A batch is committed whole, in one transaction, or not at all.
//!
//! Every row stands in `positions` exactly once under its key (imei, ts, fingerprint), however often it is committed. Each
//! transaction begins at the lane's checkpoint, which is a fence (see [`Lane`]): it finds a commit whose answer was lost,
//! and stops a second owner of the journal.

mod commit;
mod devices;
mod error;
mod faulty;
mod flags;
mod migrate;
mod model;
mod port;
mod postgres;
mod quarantine;
mod replay;
mod retain;
mod session;
mod sqlite;
mod statements;
mod url;

use std::fmt;

pub use commit::lane_writer::LaneWriter;
pub use commit::quarantine_input::QuarantineCap;
pub use commit::quarantine_input::QuarantineInput;
pub use commit::script::{COMMIT_ORDER, CommitStep};
pub use devices::{DeviceTable, Devices};
pub use error::remedy::remedy;
pub use faulty::{
    Fate, FaultyDatabase, FaultyLedger, FaultyStore, Flagged, Flaw, Left, Snapshot, StoredRow, Tables, Waiting,
};
pub use flags::cache::LedgerEntry;
pub use flags::flag_ledger::FlagLedger;
pub use flags::intervals::FlagInterval;
pub use flags::script::{APPLY_ORDER, FLAG_ORDER, FlagOrder, FlagStep, RECORD_ORDER};
pub use migrate::{MigrateOptions, MigrateReport, migrate};
pub use model::batch::{Batch, Message, QuarantineReason, Quarantined};
pub use model::columns::{ColumnType, ELEMENT_COLUMNS, ELEMENTS, ElementColumn, column_of};
pub use model::committed::{Committed, WritePath};
pub use model::fence::{BatchSpan, Checkpoint, CommitOutcome, Lane, StoredCheckpoint};
pub use model::flag::{Applied, Correction, FlagChange, FlagState, InvalidWindow, Window};
pub use model::retention_clock::{RetentionClock, RetentionRefusal};
pub use model::row::{Key, MAX_TS_MS, MIN_TS_MS, Row, Spans, TypedElements};
pub use model::rows::{RowSlice, Rows};
pub use model::unapplied::{FlagWindow, UnappliedFlags};
pub use port::{Ledger, OUTBOX_MAX, Schema, Store};
pub use postgres::features::{Columnstore, Features, PositionsTable, features};
pub use postgres::session::connect;
pub use postgres::tls::{HandshakeError, MakeTls};
pub use postgres::url::PostgresUrl;
pub use postgres::{DoesNotFit, PostgresConnect, PostgresLedger, PostgresStore, encode_copy};
pub use quarantine::{Quarantine, QuarantineCursor, QuarantineEntry, QuarantineFilter, QuarantineTotal};
pub use replay::{Differences, LanePosition, ReplayBatch, RewriteReport, Rewriter, RowDifference};
pub use retain::{DroppedChunk, Retention, RetentionReport, retain};
pub use sqlite::{SqliteLedger, SqliteStore};
pub use statements::{BatchSession, Connect, FlagSession, MarkSession, PartTable, Session};
pub use url::{DatabaseUrl, InvalidDatabaseUrl};

use sha2::{Digest, Sha256};

use self::error::classify::SqlErrorKind;

/// A failed store operation: what to do about it, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct StoreError {
    /// Who must act.
    pub class: ErrorClass,
    /// What was being done.
    pub doing: &'static str,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
    kind: SqlErrorKind,
    in_doubt: bool,
}

impl StoreError {
    /// An error of a class.
    pub fn new(
        class: ErrorClass,
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let kind = match class {
            ErrorClass::Unavailable => SqlErrorKind::Retry,
            ErrorClass::Refuses => SqlErrorKind::Refuse,
        };
        Self { class, doing, source: source.into(), kind, in_doubt: false }
    }

    /// Whether the commit was sent and not answered: it may stand, or come to stand a moment later.
    #[must_use]
    pub const fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Whether another session holds the lane: a copy of this journal in another process, or the end of an earlier
    /// connection of this one that the server has not noticed yet.
    #[must_use]
    pub fn lane_is_held(&self) -> bool {
        self.doing == CLAIMING && self.kind == SqlErrorKind::Retry
    }
}

/// What a store error asks for. Nothing is ever dropped: both are tried again, the second slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The database is away, restarting, short of something, or chose this transaction as a victim: it passes.
    Unavailable,
    /// The database answers and refuses: schema, permission, password or a read-only server. The operator must act.
    Refuses,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 2] = [Self::Unavailable, Self::Refuses];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refuses => "refuses",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is being done while another session may hold the lane.
const CLAIMING: &str = "waiting for the session that holds this journal's lane";

/// What quarantine tells the same bytes by: their SHA-256.
fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
