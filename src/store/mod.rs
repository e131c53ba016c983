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
mod postgres;
mod quarantine;
mod replay;
mod retain;
mod sqlite;
mod url;

use std::fmt;

pub use commit::quarantine_input::QuarantineCap;
pub use devices::{DeviceTable, Devices};
pub use error::remedy::remedy;
pub use faulty::{
    Fate, FaultyDatabase, FaultyLedger, FaultyStore, Flagged, Flaw, Left, Snapshot, StoredRow, Tables, Waiting,
};
pub use flags::ledger::{Ledger, OUTBOX_MAX};
pub use migrate::{MigrateOptions, MigrateReport, migrate};
pub use model::batch::{Batch, Message, QuarantineReason, Quarantined};
pub use model::columns::{ColumnType, ELEMENT_COLUMNS, ELEMENTS, ElementColumn, column_of};
pub use model::fence::{BatchSpan, Checkpoint, CommitOutcome, Lane};
pub use model::flag::{Applied, Correction, FlagChange, FlagState, InvalidWindow, Window};
pub use model::retention_clock::{RetentionClock, RetentionRefusal};
pub use model::row::{Key, MAX_TS_MS, MIN_TS_MS, Row, Spans, TypedElements};
pub use model::rows::Rows;
pub use postgres::features::{Columnstore, Features, PositionsTable, features};
pub use postgres::session::connect;
pub use postgres::tls::{HandshakeError, MakeTls};
pub use postgres::url::PostgresUrl;
pub use postgres::{DoesNotFit, PostgresLedger, PostgresStore, encode_copy};
pub use quarantine::{Quarantine, QuarantineCursor, QuarantineEntry, QuarantineFilter, QuarantineTotal};
pub use replay::{Differences, LanePosition, ReplayBatch, RewriteReport, Rewriter, RowDifference};
pub use retain::{DroppedChunk, Retention, RetentionReport, retain};
pub use sqlite::{SqliteLedger, SqliteStore};
pub use url::{DatabaseUrl, InvalidDatabaseUrl};

use sha2::{Digest, Sha256};

use self::error::classify::SqlErrorKind;

/// A database that takes the batches of one lane. Implemented by [`PostgresStore`] and [`SqliteStore`].
pub trait Store {
    /// Writes this lane from now on: gives up what it held of another one, a commit that is in doubt included.
    fn assign(&mut self, lane: Lane);

    /// Claims the lane, and tells where it stands: at [`Checkpoint::default`] where the database does not know it. Where the
    /// journal had another number of lanes, all of them go back to the one that was furthest behind.
    ///
    /// # Errors
    /// Nothing has changed then, or all has; call it again. While another session holds the lane it is unavailable.
    fn open_lane(&mut self) -> impl Future<Output = Result<Checkpoint, StoreError>> + Send;

    /// Commits everything that the batch brings, and the lane's new place, in one transaction. Where it returns
    /// [`CommitOutcome::Committed`], that survives a crash of this process and of the database. The batch is sorted, and stays as
    /// it is otherwise.
    ///
    /// # Errors
    /// Nothing is known of the batch then if [`StoreError::in_doubt`]: offer the same batch again, unchanged, and the fence
    /// tells. Otherwise nothing was committed, and another batch may be offered from the same place.
    fn commit(
        &mut self,
        batch: &mut Batch,
        step: &BatchSpan,
    ) -> impl Future<Output = Result<CommitOutcome, StoreError>> + Send;

    /// Forgets the journal: it will not be written from again under its id.
    ///
    /// # Errors
    /// Harmless: a few checkpoint rows are left over.
    fn retire(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Looks at the schema: whether this program can write to it.
    ///
    /// # Errors
    /// When the database cannot be asked.
    fn schema(&mut self) -> impl Future<Output = Result<Schema, StoreError>> + Send;

    /// Closes the connection in good order.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// What a commit did. The sum is the number of rows that the batch offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    inserted: u64,
    duplicates: u64,
    refused: Vec<Key>,
    path: WritePath,
    capped: u64,
}

/// How most rows of a batch were written; also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WritePath {
    /// Straight into the table.
    Copy,
    /// Under the key, which decides row by row.
    Conflict,
}

impl WritePath {
    /// Every path.
    pub const ALL: [Self; 2] = [Self::Copy, Self::Conflict];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Conflict => "conflict",
        }
    }
}

impl Committed {
    /// What a store says after its commit, and nobody else.
    fn new(inserted: u64, duplicates: u64, refused: Vec<Key>, path: WritePath) -> Self {
        Self { inserted, duplicates, refused, path, capped: 0 }
    }

    /// How they were written.
    #[must_use]
    pub const fn path(&self) -> WritePath {
        self.path
    }

    /// The same, with what was over the bound of the quarantine.
    fn with_capped(self, capped: u64) -> Self {
        Self { capped, ..self }
    }

    /// Records that were over what quarantine keeps of a device and hour, and are only counted.
    #[must_use]
    pub const fn capped(&self) -> u64 {
        self.capped
    }

    /// Rows that were new.
    #[must_use]
    pub const fn inserted(&self) -> u64 {
        self.inserted
    }

    /// Rows that stood there before, or came twice in the batch.
    #[must_use]
    pub const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Rows that the database would not take; they are in quarantine.
    #[must_use]
    pub fn refused(&self) -> &[Key] {
        &self.refused
    }
}

/// The state of the database's schema against `db-init/` of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Every migration is applied.
    Current,
    /// Some are missing: `odograph migrate` mends it.
    Outdated,
    /// The database has migrations that this program does not know: the program is older than the database.
    Newer,
}

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
