//! The database of an installation: the only file that decides between PostgreSQL and SQLite.
//!
//! Everything above the store takes these types and functions and never names a backend. Everything below knows its own
//! backend and no other.

use std::path::Path;

use uuid::Uuid;

use crate::backoff::Backoff;
use crate::lane::Lane;
use crate::store::commit::quarantine_input::QuarantineCap;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::model::batch::Batch;
use crate::store::model::devices::Devices;
use crate::store::model::features::Features;
use crate::store::model::fence::{BatchSpan, Checkpoint, CommitOutcome};
use crate::store::model::flag::{Applied, Correction, FlagChange};
use crate::store::model::migration::{MigrateOptions, MigrateReport, Schema};
use crate::store::model::quarantine::{QuarantineCursor, QuarantineEntry, QuarantineFilter, QuarantineTotal};
use crate::store::model::quarantine_query::QuarantineOrder;
use crate::store::model::retention::{Retention, RetentionReport};
use crate::store::model::retention_clock::RetentionClock;
use crate::store::model::rewrite::{
    Differences, LanePosition, ReplayBatch, RewriteCounts, RewriteProgress, RewriteReport,
};
use crate::store::port::{Ledger, Store};
use crate::store::postgres::devices::PostgresDevices;
use crate::store::postgres::quarantine::PostgresQuarantine;
use crate::store::postgres::replay::PostgresRewriter;
use crate::store::postgres::url::PostgresUrl;
use crate::store::postgres::{self, PostgresLedger, PostgresStore};
use crate::store::sqlite::devices::SqliteDevices;
use crate::store::sqlite::quarantine::SqliteQuarantine;
use crate::store::sqlite::replay::SqliteRewriter;
use crate::store::sqlite::{self, SqliteLedger, SqliteStore};
use crate::store::url::DatabaseUrl;
use odograph_journal::JournalId;

/// One of two implementations.
enum Backend<P, S> {
    Postgres(P),
    Sqlite(S),
}

/// Evaluates the same call on either implementation.
macro_rules! on_backend {
    ($backend:expr, $inner:ident => $call:expr) => {
        match $backend {
            Backend::Postgres($inner) => $call,
            Backend::Sqlite($inner) => $call,
        }
    };
}

/// The largest number of lanes: a SQLite file has one writer.
#[must_use]
pub const fn lanes_max(url: &DatabaseUrl) -> u16 {
    match url {
        DatabaseUrl::Postgres(_) => u16::MAX,
        DatabaseUrl::Sqlite(_) => 1,
    }
}

/// Whether opening a store creates and migrates the database. Otherwise `odograph migrate` has to run first.
#[must_use]
pub const fn migrates_on_open(url: &DatabaseUrl) -> bool {
    match url {
        DatabaseUrl::Postgres(_) => false,
        DatabaseUrl::Sqlite(_) => true,
    }
}

/// The server that holds the positions; `None` for a file.
#[must_use]
pub fn server_of(url: &DatabaseUrl) -> Option<&PostgresUrl> {
    match url {
        DatabaseUrl::Postgres(url) => Some(url),
        DatabaseUrl::Sqlite(_) => None,
    }
}

/// The file that holds the positions; `None` for a server.
#[must_use]
pub fn file_of(url: &DatabaseUrl) -> Option<&Path> {
    match url {
        DatabaseUrl::Postgres(_) => None,
        DatabaseUrl::Sqlite(path) => Some(path),
    }
}

/// Runs one of two inspections: a server and a file have little in common that an operator can look at.
pub async fn inspect<T>(
    url: &DatabaseUrl,
    server: impl AsyncFnOnce(&PostgresUrl) -> T,
    file: impl AsyncFnOnce(&Path) -> T,
) -> T {
    match url {
        DatabaseUrl::Postgres(url) => server(url).await,
        DatabaseUrl::Sqlite(path) => file(path).await,
    }
}

/// Applies every migration that the database lacks, then the options. Safe to repeat, and safe when two processes do it
/// at once: one applies, the other waits and finds it done.
///
/// # Errors
/// Each migration is a transaction: those before the failing one stay, and the next run continues after them.
pub async fn migrate(url: &DatabaseUrl, options: &MigrateOptions) -> Result<MigrateReport, StoreError> {
    match url {
        DatabaseUrl::Postgres(url) => postgres::migrate::migrate(url, options).await,
        DatabaseUrl::Sqlite(path) => sqlite::migrate::migrate(path, options).await,
    }
}

/// Deletes what has expired, by the clock given. A chunk goes when all of it has expired. `latest_positions` keeps each
/// device's latest position, however old.
///
/// # Errors
/// What was deleted until then stays deleted; the next run continues from there.
pub async fn retain(
    url: &DatabaseUrl,
    retention: &Retention,
    clock: &RetentionClock,
) -> Result<RetentionReport, StoreError> {
    if retention.keeps_all() {
        return Ok(RetentionReport::default());
    }
    match url {
        DatabaseUrl::Postgres(url) => postgres::retain::retain(url, retention, clock).await,
        DatabaseUrl::Sqlite(path) => sqlite::retain::retain(path, retention, clock).await,
    }
}

/// Compares the schema of an existing database with this program's.
///
/// # Errors
/// When the database cannot be queried.
pub async fn schema(url: &DatabaseUrl) -> Result<Schema, StoreError> {
    match url {
        DatabaseUrl::Postgres(url) => postgres::migrate::schema_of_database(url).await,
        DatabaseUrl::Sqlite(path) => sqlite::migrate::schema_of_file(path).await,
    }
}

/// Looks up what a migrated database offers, for one log line at the start.
///
/// # Errors
/// When the database cannot be queried, or its TimescaleDB is too old.
pub async fn features(url: &DatabaseUrl) -> Result<Features, StoreError> {
    match url {
        DatabaseUrl::Postgres(url) => postgres::features::of_database(url).await,
        DatabaseUrl::Sqlite(_) => Ok(Features::EMBEDDED),
    }
}

/// Writes one lane to the database of a URL.
pub struct DatabaseStore(Backend<PostgresStore, SqliteStore>);

impl DatabaseStore {
    /// Prepares for a server without connecting, or opens and migrates a file.
    ///
    /// # Errors
    /// When the URL names certificates that cannot be read, or the file cannot be opened and migrated.
    pub async fn open(url: &DatabaseUrl, lane: Lane, cap: QuarantineCap) -> Result<Self, StoreError> {
        Ok(Self(match url {
            DatabaseUrl::Postgres(url) => Backend::Postgres(PostgresStore::new(url, lane)?.keeping(cap)),
            DatabaseUrl::Sqlite(path) => Backend::Sqlite(SqliteStore::open(path, lane).await?.keeping(cap)),
        }))
    }
}

impl Store for DatabaseStore {
    fn assign(&mut self, lane: Lane) {
        on_backend!(&mut self.0, store => store.assign(lane));
    }

    async fn open_lane(&mut self) -> Result<Checkpoint, StoreError> {
        on_backend!(&mut self.0, store => store.open_lane().await)
    }

    async fn commit(&mut self, batch: &mut Batch, span: &BatchSpan) -> Result<CommitOutcome, StoreError> {
        on_backend!(&mut self.0, store => store.commit(batch, span).await)
    }

    async fn retire(&mut self) -> Result<(), StoreError> {
        on_backend!(&mut self.0, store => store.retire().await)
    }

    async fn schema(&mut self) -> Result<Schema, StoreError> {
        on_backend!(&mut self.0, store => store.schema().await)
    }

    async fn server_now_us(&mut self) -> Result<Option<i64>, StoreError> {
        on_backend!(&mut self.0, store => store.server_now_us().await)
    }

    async fn close(&mut self) {
        on_backend!(&mut self.0, store => store.close().await);
    }
}

/// Writes the ledger of flags to the database of a URL.
pub struct DatabaseLedger(Backend<PostgresLedger, SqliteLedger>);

impl DatabaseLedger {
    /// Prepares for a database without connecting. A [`DatabaseStore`] has to have opened a file before.
    ///
    /// # Errors
    /// When the URL names certificates that cannot be read.
    pub fn new(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Ok(Self(match url {
            DatabaseUrl::Postgres(url) => Backend::Postgres(PostgresLedger::new(url)?),
            DatabaseUrl::Sqlite(path) => Backend::Sqlite(SqliteLedger::new(path)),
        }))
    }
}

impl Ledger for DatabaseLedger {
    async fn apply(&mut self, changes: &[FlagChange]) -> Result<Vec<Applied>, StoreError> {
        on_backend!(&mut self.0, ledger => ledger.apply(changes).await)
    }

    async fn unapplied(&mut self, most: usize, except: &[(Uuid, i64)]) -> Result<Vec<(Uuid, i64)>, StoreError> {
        on_backend!(&mut self.0, ledger => ledger.unapplied(most, except).await)
    }

    async fn follow(&mut self, flags: &[Uuid]) -> Result<(), StoreError> {
        on_backend!(&mut self.0, ledger => ledger.follow(flags).await)
    }

    async fn behind(&mut self, most: usize, except: &[(Uuid, i64)]) -> Result<Vec<FlagChange>, StoreError> {
        on_backend!(&mut self.0, ledger => ledger.behind(most, except).await)
    }

    async fn corrections(&mut self, most: usize) -> Result<Option<Vec<Correction>>, StoreError> {
        on_backend!(&mut self.0, ledger => ledger.corrections(most).await)
    }

    async fn remove_corrections(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        on_backend!(&mut self.0, ledger => ledger.remove_corrections(ids).await)
    }

    async fn trim_corrections(&mut self) -> Result<u64, StoreError> {
        on_backend!(&mut self.0, ledger => ledger.trim_corrections().await)
    }

    async fn close(&mut self) {
        on_backend!(&mut self.0, ledger => ledger.close().await);
    }
}

/// Reads the table `devices`, over a connection of its own that is made when it is needed. A connection that met an
/// error is never used again.
pub struct DeviceTable(Backend<PostgresDevices, SqliteDevices>);

impl DeviceTable {
    /// Prepares for a database without connecting.
    #[must_use]
    pub fn new(url: &DatabaseUrl) -> Self {
        Self(match url {
            DatabaseUrl::Postgres(url) => Backend::Postgres(PostgresDevices::new(url)),
            DatabaseUrl::Sqlite(path) => Backend::Sqlite(SqliteDevices::new(path)),
        })
    }

    /// Reads the whole table, which may have at most `most` rows.
    ///
    /// # Errors
    /// When there is no such table, it may not be read, it has more rows, or the database does not answer in time.
    /// Nothing is known about the devices then.
    pub async fn read(&mut self, most: usize) -> Result<Devices, StoreError> {
        on_backend!(&mut self.0, devices => devices.read(most).await)
    }

    /// Whether a trigger could notify of changes.
    #[must_use]
    pub const fn can_notify(&self) -> bool {
        match self.0 {
            Backend::Postgres(_) => true,
            Backend::Sqlite(_) => false,
        }
    }

    /// Waits for a notification that devices have changed, or for the end of the connection. Waits forever if the
    /// database cannot notify. Cancel-safe: a change while nobody waits is not missed.
    pub async fn changed(&self) {
        on_backend!(&self.0, devices => devices.changed().await);
    }
}

/// Reads and purges the quarantine.
pub struct Quarantine(Backend<PostgresQuarantine, SqliteQuarantine>);

impl Quarantine {
    /// Connects to an existing database.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Ok(Self(match url {
            DatabaseUrl::Postgres(url) => Backend::Postgres(PostgresQuarantine::open(url).await?),
            DatabaseUrl::Sqlite(path) => Backend::Sqlite(SqliteQuarantine::open(path).await?),
        }))
    }

    /// Counts the records, by reason.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn totals(&mut self, filter: &QuarantineFilter) -> Result<Vec<QuarantineTotal>, StoreError> {
        on_backend!(&mut self.0, quarantine => quarantine.totals(filter).await)
    }

    /// Reads the newest records, at most `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest(&mut self, filter: &QuarantineFilter, most: u32) -> Result<Vec<QuarantineEntry>, StoreError> {
        let order = QuarantineOrder::NewestFirst;
        on_backend!(&mut self.0, quarantine => quarantine.page(filter, order, None, most).await)
    }

    /// Reads the oldest records after a cursor, at most `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn after(
        &mut self,
        filter: &QuarantineFilter,
        cursor: Option<QuarantineCursor>,
        most: u32,
    ) -> Result<Vec<QuarantineEntry>, StoreError> {
        let order = QuarantineOrder::OldestFirst;
        on_backend!(&mut self.0, quarantine => quarantine.page(filter, order, cursor, most).await)
    }

    /// Deletes some records, the oldest first, in one small transaction. Returns 0 when none are left.
    ///
    /// # Errors
    /// When the database fails. What was deleted before stays deleted.
    pub async fn purge_some(&mut self, filter: &QuarantineFilter) -> Result<u64, StoreError> {
        on_backend!(&mut self.0, quarantine => quarantine.purge_some(filter).await)
    }
}

/// Writes records that were decoded again, while others write to the same database.
pub struct Rewriter(Backend<PostgresRewriter, SqliteRewriter>);

impl Rewriter {
    /// Connects, and checks that the schema is up to date.
    ///
    /// # Errors
    /// When the database cannot be queried, or lacks migrations.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let mut backend = match url {
            DatabaseUrl::Postgres(url) => Backend::Postgres(PostgresRewriter::new(url)?),
            DatabaseUrl::Sqlite(path) => Backend::Sqlite(SqliteRewriter::open(path).await?),
        };
        if on_backend!(&mut backend, rewriter => rewriter.schema().await?) == Schema::Outdated {
            let remedy = "the database lacks migrations: run `odograph migrate` with the same DATABASE_URL";
            return Err(StoreError::new(ErrorClass::Refuses, "looking at the schema", remedy));
        }
        Ok(Self(backend))
    }

    /// How many rows to write in one transaction.
    #[must_use]
    pub const fn batch_rows(&self) -> usize {
        match self.0 {
            Backend::Postgres(_) => 5_000,
            // Every other writer waits for the whole transaction.
            Backend::Sqlite(_) => 1_000,
        }
    }

    /// Reads the checkpoints of a journal's lanes. Empty if this database does not know the journal.
    ///
    /// # Errors
    /// When the database cannot be queried.
    pub async fn lanes(&mut self, journal: JournalId) -> Result<Vec<LanePosition>, StoreError> {
        on_backend!(&mut self.0, rewriter => rewriter.lanes(journal).await)
    }

    /// Makes the tables hold what was decoded. Writes rows in the order of their keys in one transaction, or in several
    /// if one is too much for the columnstore. An error that passes (a deadlock, a lost connection) is retried for a
    /// while.
    ///
    /// # Errors
    /// What was not committed has not happened. What was committed stays right.
    pub async fn rewrite(&mut self, batch: &mut ReplayBatch) -> Result<RewriteReport, StoreError> {
        let offered = batch.prepare();
        let (mut counts, mut backoff) = (RewriteCounts::default(), Backoff::default());
        loop {
            match on_backend!(&mut self.0, rewriter => rewriter.round(batch, &mut counts).await) {
                Ok(RewriteProgress::Whole) => return Ok(counts.report(offered)),
                Ok(RewriteProgress::Part) => backoff.reset(),
                Err(error) if error.class == ErrorClass::Refuses || backoff.failures() >= REWRITE_RETRIES => {
                    return Err(error);
                }
                Err(error) => {
                    let pause = backoff.next_pause();
                    tracing::warn!(%error, cause = %error.source, retry_in = ?pause, "a batch failed; retrying");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Counts what [`Self::rewrite`] would do. Changes nothing and takes no lock that anyone waits for. Rows that the
    /// database would refuse are not known.
    ///
    /// # Errors
    /// When the database cannot be queried.
    pub async fn compare(
        &mut self,
        batch: &mut ReplayBatch,
        differences: &mut Differences,
    ) -> Result<RewriteReport, StoreError> {
        let offered = batch.prepare();
        let mut counts = RewriteCounts::default();
        on_backend!(&mut self.0, rewriter => rewriter.compare(batch, differences, &mut counts).await?);
        Ok(counts.report(offered))
    }
}

/// With the pauses of [`Backoff`] about half a minute, in which a database restarts.
const REWRITE_RETRIES: u32 = 12;
