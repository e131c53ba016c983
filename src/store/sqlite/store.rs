//! The store of a lane in SQLite.
//!
//! Write-ahead log and full synchronisation: a commit is in the log and synced when it returns. A connection that met
//! an error or a cancelled commit is closed and never used again, because its state is unknown.

use std::collections::HashMap;
use std::path::Path;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::connection::{COLUMN_SETS_MAX, make_directory, open_synced, options};
use super::insert::Statements;
use super::migrate;
use super::transaction::{self, Transaction};
use crate::lane::Lane;
use crate::store::commit::quarantine_input::QuarantineCap;
use crate::store::error::store_error::StoreError;
use crate::store::flags::cache::FlagCache;
use crate::store::model::batch::Batch;
use crate::store::model::column_set::ColumnSet;
use crate::store::model::fence::{BatchSpan, Checkpoint, CommitInDoubt, CommitOutcome};
use crate::store::model::migration::Schema;
use crate::store::port::Store;

/// Writes the only lane of a journal to a SQLite file over one connection.
pub struct SqliteStore {
    options: SqliteConnectOptions,
    lane: Lane,
    cap: QuarantineCap,
    /// The commit that was sent and failed.
    doubt: Option<CommitInDoubt>,
    /// Taken out for each operation and put back only after success.
    connection: Option<SqliteConnection>,
    statements: HashMap<ColumnSet, Statements>,
    /// What this connection knows of the ledger of flags.
    flags: FlagCache,
}

impl SqliteStore {
    /// Opens the file, makes it and its directory if they are missing, and applies the migrations.
    ///
    /// A schema newer than this program is left as it is; [`Store::schema`] reports it.
    ///
    /// # Errors
    /// When the file cannot be opened and migrated.
    pub async fn open(path: &Path, lane: Lane) -> Result<Self, StoreError> {
        let options = options(path);
        make_directory(path)?;
        let mut connection = open_synced(&options).await?;
        migrate::apply_missing(&mut connection).await?;
        Ok(Self {
            options,
            lane,
            cap: None,
            doubt: None,
            connection: Some(connection),
            statements: HashMap::new(),
            flags: FlagCache::default(),
        })
    }

    /// The same store, with a maximum number of quarantined records per device and hour.
    #[must_use]
    pub fn keeping(self, cap: QuarantineCap) -> Self {
        Self { cap, ..self }
    }

    async fn connection(&mut self) -> Result<SqliteConnection, StoreError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        // The path may name another file by now.
        self.flags = FlagCache::default();
        open_synced(&self.options).await
    }
}

impl Store for SqliteStore {
    fn assign(&mut self, lane: Lane) {
        (self.lane, self.doubt) = (lane, None);
    }

    async fn open_lane(&mut self) -> Result<Checkpoint, StoreError> {
        let mut connection = self.connection().await?;
        let checkpoint = transaction::open_lane(&mut connection, self.lane).await?;
        self.connection = Some(connection);
        Ok(checkpoint)
    }

    async fn commit(&mut self, batch: &mut Batch, span: &BatchSpan) -> Result<CommitOutcome, StoreError> {
        batch.sort();
        let mut connection = self.connection().await?;
        if self.statements.len() >= COLUMN_SETS_MAX {
            self.statements.clear();
        }
        let (statements, flags) = (&mut self.statements, &mut self.flags);
        let transaction =
            Transaction { connection: &mut connection, lane: self.lane, cap: self.cap, statements, flags };
        let outcome = transaction.run(batch, span, &mut self.doubt).await;
        let outcome = outcome.map_err(|error| error.with_doubt(self.doubt.is_some()))?;
        self.connection = Some(connection);
        Ok(outcome)
    }

    async fn retire(&mut self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        transaction::forget(&mut connection, self.lane).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn schema(&mut self) -> Result<Schema, StoreError> {
        let mut connection = self.connection().await?;
        let schema = migrate::schema(&mut connection).await?;
        self.connection = Some(connection);
        Ok(schema)
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // What is committed is synced. If the log cannot be folded in now, the next opening reads it.
            let _ = connection.close().await;
        }
    }
}
