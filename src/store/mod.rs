//! The stores: they know rows, not frames. A batch is committed whole, in one transaction, or not at all.
//!
//! Every row stands in `positions` exactly once under its key (imei, ts, fingerprint), however often it is committed: so
//! after an error, or a commit whose answer was lost, the same batch is simply committed again.

mod columns;
mod failure;
mod migrate;
mod row;
mod sql;
mod sqlite;
mod timescale;
mod url;

use std::fmt;

pub use columns::{ColumnType, ELEMENT_COLUMNS, ELEMENTS, ElementColumn, column_of};
pub use migrate::{MigrateOptions, MigrateReport, PositionsTable, migrate};
pub use row::{Batch, IoSpan, MAX_TS_MS, MIN_TS_MS, Row, TypedElements};
pub use sqlite::SqliteStore;
pub use timescale::TimescaleStore;
pub use url::{DatabaseUrl, InvalidDatabaseUrl, PostgresUrl};

/// A database that takes batches. Implemented by [`TimescaleStore`] and [`SqliteStore`].
pub trait Store {
    /// Commits every row of the batch and the newest positions that follow from it, in one transaction. When it
    /// returns, the rows survive a crash of this process and of the database.
    ///
    /// # Errors
    /// Nothing is known of the batch then: it may have been committed. Commit it again; keys make that harmless.
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<Committed, StoreError>> + Send;

    /// Looks at the schema: whether this program can write to it.
    ///
    /// # Errors
    /// When the database cannot be asked.
    fn schema(&mut self) -> impl Future<Output = Result<Schema, StoreError>> + Send;

    /// Closes the connection in good order.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// What a commit did. The sum is the number of rows of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    inserted: u64,
    duplicates: u64,
}

impl Committed {
    /// What a store says after its commit, and nobody else.
    fn new(inserted: u64, duplicates: u64) -> Self {
        Self { inserted, duplicates }
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
