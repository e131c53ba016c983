//! The writer's connection to a SQLite file: write-ahead log, full synchronisation.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};

use super::operator_connection::failed;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cache_size", CACHE_SIZE)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        // A full statement is prepared twice for each column set.
        .statement_cache_capacity(2 * COLUMN_SETS_MAX)
        // A slow one would be logged with its text, thousands of question marks long.
        .disable_statement_logging()
}

pub(super) fn make_directory(file: &Path) -> Result<(), StoreError> {
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)
        .map_err(|error| StoreError::new(ErrorClass::Refuses, "making the database's directory", error))
}

/// Opens the file. SQLite calls no busy handler while a new file is switched to the write-ahead log, so a second process that
/// opens it at that moment is told "locked" at once: it tries again for as long as any other statement would wait.
pub(super) async fn open(options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && Instant::now() < deadline => tokio::time::sleep(BUSY_PAUSE).await,
            opened => return opened.map_err(failed("opening the database file")),
        }
    }
}

/// Whether another connection holds the file. The low byte of an extended code is the primary one.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == SQLITE_BUSY)
}

/// Opens the file, and syncs what its log holds. A killed process may have left rows in the log that were never synced.
/// They would pass for stored, and a resend of them would be acknowledged without another sync.
pub(super) async fn open_synced(options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    const SYNCING: &str = "syncing the database's log";
    let mut connection = open(options).await?;
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let checkpoint = sqlx::query_scalar("PRAGMA wal_checkpoint(FULL)");
        let busy: i64 = checkpoint.fetch_one(&mut connection).await.map_err(failed(SYNCING))?;
        if busy == 0 {
            return Ok(connection);
        }
        if Instant::now() > deadline {
            return Err(StoreError::new(ErrorClass::Unavailable, SYNCING, "another process holds it"));
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}

/// Another process (migrate, replay) writes for a second at most.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// `SQLITE_BUSY` of sqlite3.h.
const SQLITE_BUSY: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Column sets whose statements are kept. A fleet has a handful, because each is the union over a batch.
pub(super) const COLUMN_SETS_MAX: usize = 32;
/// 64 MiB (negative: KiB): the pages that a batch over thousands of devices touches.
const CACHE_SIZE: &str = "-65536";
/// 16 MiB of log. A batch writes a few thousand pages; at the default of 1,000 each commit would also pay for copying
/// them into the file.
const CHECKPOINT_PAGES: &str = "4096";
