//! SQLite in a file: the embedded default, which needs no set-up.
//!
//! Write-ahead log and full synchronisation: a commit is in the log and synced when it returns. As with the other store, a
//! connection that met an error or a cancelled commit is closed and never used again.

pub(crate) mod devices;
mod flag_batch;
mod flags;
mod insert;
mod ledger;
pub(crate) mod migrate;
pub(crate) mod quarantine;
mod replay;
pub(crate) mod retain;
mod transaction;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use self::insert::Statements;
pub use self::ledger::SqliteLedger;
pub(super) use self::replay::SqliteRewriter;
use self::transaction::Transaction;
use super::migrate::{APPLIED, APPLYING, MigrateOptions, MigrateReport, SQLITE_MIGRATIONS};
use super::{Batch, Columnstore, DatabaseUrl, ErrorClass, PositionsTable, QuarantineCap, Schema, Store, StoreError};
use crate::store::flags::cache::FlagCache;
use crate::store::model::column_set::ColumnSet;
use crate::store::model::fence::{BatchSpan, Checkpoint, CommitInDoubt, CommitOutcome, Lane};

/// Writes the only lane of a journal to a SQLite file over one connection.
pub struct SqliteStore {
    options: SqliteConnectOptions,
    lane: Lane,
    cap: QuarantineCap,
    /// The commit that was sent and failed.
    doubt: Option<CommitInDoubt>,
    /// Taken out for each operation and put back only when all went well.
    connection: Option<SqliteConnection>,
    statements: HashMap<ColumnSet, Statements>,
    /// What is known of the ledger of flags on this connection.
    flags: FlagCache,
}

impl SqliteStore {
    /// Opens the file, makes it and its directory where they are missing, and applies the migrations.
    ///
    /// A schema newer than this program is left as it is: [`Store::schema`] tells.
    ///
    /// # Errors
    /// When the URL is not one of SQLite, or the file cannot be opened and migrated.
    pub async fn open(url: &DatabaseUrl, lane: Lane) -> Result<Self, StoreError> {
        let DatabaseUrl::Sqlite(path) = url else {
            return Err(StoreError::new(ErrorClass::Refuses, OPENING, "the URL is not one of SQLite"));
        };
        let options = options(path);
        make_directory(path)?;
        let mut connection = connect(&options).await?;
        migrate(&mut connection).await?;
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

    /// The same, with a bound to what quarantine keeps of a device.
    #[must_use]
    pub fn keeping(self, cap: QuarantineCap) -> Self {
        Self { cap, ..self }
    }

    pub(super) async fn migrate(path: &Path, asked: &MigrateOptions) -> Result<MigrateReport, StoreError> {
        if asked.directus {
            let remedy = "Directus' side is made for PostgreSQL: name that database in DATABASE_URL";
            return Err(StoreError::new(ErrorClass::Refuses, APPLYING, remedy));
        }
        make_directory(path)?;
        let mut connection = options(path).connect().await.map_err(failed(OPENING))?;
        let (schema, applied) = migrate(&mut connection).await?;
        if schema == Schema::Newer {
            return Err(StoreError::new(ErrorClass::Refuses, APPLYING, "the schema is newer than this program"));
        }
        let by_device = migrate::steps(&mut connection, asked).await?;
        connection.close().await.map_err(failed("closing the database file"))?;
        let (positions, columnstore) = (PositionsTable::Embedded, Columnstore::NoChunks);
        Ok(MigrateReport { applied, restored: Vec::new(), positions, columnstore, by_device })
    }

    async fn connection(&mut self) -> Result<SqliteConnection, StoreError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        // Another file may stand there by now.
        self.flags = FlagCache::default();
        connect(&self.options).await
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

    async fn commit(&mut self, batch: &mut Batch, step: &BatchSpan) -> Result<CommitOutcome, StoreError> {
        batch.sort();
        let mut connection = self.connection().await?;
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        let (statements, flags) = (&mut self.statements, &mut self.flags);
        let transaction =
            Transaction { connection: &mut connection, lane: self.lane, cap: self.cap, statements, flags };
        let outcome = transaction.run(batch, step, &mut self.doubt).await;
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
        let applied = applied(&mut connection).await?;
        self.connection = Some(connection);
        Ok(SQLITE_MIGRATIONS.compare(&applied))
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // What is committed is synced; the next opening reads the log if it could not be folded in now.
            let _ = connection.close().await;
        }
    }
}

fn make_directory(file: &Path) -> Result<(), StoreError> {
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)
        .map_err(|error| StoreError::new(ErrorClass::Refuses, "making the database's directory", error))
}

/// Opens the file, and syncs what its log holds. A process that was killed may have left rows in the log that were never
/// synced; they would pass for stored, and a resend of them would be acknowledged without another sync.
async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    const SYNCING: &str = "syncing the database's log";
    let mut connection = options.connect().await.map_err(failed(OPENING))?;
    let given_up = Instant::now() + BUSY_TIMEOUT;
    loop {
        let checkpoint = sqlx::query_scalar("PRAGMA wal_checkpoint(FULL)");
        let busy: i64 = checkpoint.fetch_one(&mut connection).await.map_err(failed(SYNCING))?;
        if busy == 0 {
            return Ok(connection);
        }
        if Instant::now() > given_up {
            return Err(StoreError::new(ErrorClass::Unavailable, SYNCING, "another process holds it"));
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cache_size", CACHE_SIZE)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        // A full statement is prepared twice for each column set.
        .statement_cache_capacity(2 * STATEMENTS_MAX)
        // A slow one would be logged with its text, thousands of question marks long.
        .disable_statement_logging()
}

/// Applies what is missing, all in one transaction: for SQLite the migrator has no lock of its own.
async fn migrate(connection: &mut SqliteConnection) -> Result<(Schema, Vec<&'static str>), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed(APPLYING))?;
    let applied = applied(&mut transaction).await?;
    let schema = SQLITE_MIGRATIONS.compare(&applied);
    if schema != Schema::Outdated {
        return Ok((schema, Vec::new()));
    }
    SQLITE_MIGRATIONS.migrator().run(&mut *transaction).await.map_err(|error| StoreError::migrate(APPLYING, error))?;
    transaction.commit().await.map_err(failed(APPLYING))?;
    Ok((Schema::Current, SQLITE_MIGRATIONS.missing_in(&applied)))
}

async fn applied(connection: &mut SqliteConnection) -> Result<Vec<i64>, StoreError> {
    const TABLE_EXISTS: &str = "SELECT EXISTS (SELECT * FROM sqlite_schema WHERE name = '_sqlx_migrations')";
    let looking = failed("looking at the schema");
    let begun = sqlx::query_scalar(TABLE_EXISTS).fetch_one(&mut *connection).await.map_err(looking)?;
    if begun { sqlx::query_scalar(APPLIED).fetch_all(connection).await.map_err(looking) } else { Ok(Vec::new()) }
}

pub(super) fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError + Copy {
    move |error| StoreError::sqlx(doing, error)
}

const OPENING: &str = "opening the database file";
/// Another process (migrate, replay) writes for a second at most.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Kept column sets, see [`Statements`]. A fleet has a handful, as each is the union over a batch.
const STATEMENTS_MAX: usize = 32;
/// 64 MiB (negative: KiB): the pages that a batch over thousands of devices touches.
const CACHE_SIZE: &str = "-65536";
/// 16 MiB of log: a batch writes a few thousand pages, and at the default of 1,000 each commit would also pay for copying
/// them into the file.
const CHECKPOINT_PAGES: &str = "4096";
