//! Retention in SQLite. The file does not shrink: what was freed is written to again.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::store::StoreError;
use crate::store::model::retention_clock::RetentionClock;
use crate::store::retain::{CLEARING, CONNECTING, DROPPING, FORGETTING, PAUSE, Retention, RetentionReport, STEP};

pub(crate) async fn retain(
    path: &Path,
    retention: &Retention,
    present: &RetentionClock,
) -> Result<RetentionReport, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).disable_statement_logging();
    let mut connection = options.connect().await.map_err(|error| StoreError::sqlx(CONNECTING, error))?;
    let retained = clear(&mut connection, retention, present).await;
    // The writer's own connection syncs the log; nothing is lost with this one.
    let _ = connection.close().await;
    retained
}

async fn clear(
    connection: &mut SqliteConnection,
    retention: &Retention,
    present: &RetentionClock,
) -> Result<RetentionReport, StoreError> {
    let mut retained = RetentionReport::default();
    if let Some(age) = retention.positions {
        let (before, wanted) = (millis(present.bound(age)), millis(present.wanted(age)));
        let mut device = -1_i64;
        while let Some(found) = next(connection, DROPPING, NEXT_OF_POSITIONS, device).await? {
            device = found;
            retained.positions += in_steps(connection, DROPPING, DELETE_POSITIONS, &[device, before, STEP]).await?;
        }
        if let Some(waiting) = present.waiting()
            && is_held(connection, wanted).await?
        {
            retained.refused = Some(waiting);
        }
        let (before, mut device) = (micros(present.bound(age)), -1_i64);
        while let Some(found) = next(connection, FORGETTING, NEXT_OF_MESSAGES, device).await? {
            device = found;
            retained.messages += in_steps(connection, FORGETTING, DELETE_MESSAGES, &[device, before, STEP]).await?;
        }
    }
    if let Some(age) = retention.quarantine {
        let before = micros(present.bound(age));
        retained.quarantined = in_steps(connection, CLEARING, DELETE_QUARANTINED, &[before, STEP]).await?;
    }
    Ok(retained)
}

async fn next(
    connection: &mut SqliteConnection,
    doing: &'static str,
    query: &'static str,
    device: i64,
) -> Result<Option<i64>, StoreError> {
    let next = sqlx::query_scalar(query).bind(device);
    next.fetch_one(connection).await.map_err(|error| StoreError::sqlx(doing, error))
}

/// Whether rows stay that are old enough.
async fn is_held(connection: &mut SqliteConnection, wanted: i64) -> Result<bool, StoreError> {
    let held = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM positions WHERE ts < ?)").bind(wanted);
    held.fetch_one(connection).await.map_err(|error| StoreError::sqlx(DROPPING, error))
}

/// Until a step finds nothing more.
async fn in_steps(
    connection: &mut SqliteConnection,
    doing: &'static str,
    delete: &'static str,
    parameters: &[i64],
) -> Result<u64, StoreError> {
    let mut deleted = 0;
    loop {
        let query = parameters.iter().fold(sqlx::query(delete), |query, parameter| query.bind(*parameter));
        let done = query.execute(&mut *connection).await.map_err(|error| StoreError::sqlx(doing, error))?;
        deleted += done.rows_affected();
        if done.rows_affected() == 0 {
            return Ok(deleted);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: SystemTime) -> i64 {
    i64::try_from(since_epoch(time).as_millis()).unwrap_or(0)
}

fn micros(time: SystemTime) -> i64 {
    i64::try_from(since_epoch(time).as_micros()).unwrap_or(0)
}

const NEXT_OF_POSITIONS: &str = "SELECT min(imei) FROM positions WHERE imei > ?";
const NEXT_OF_MESSAGES: &str = "SELECT min(imei) FROM device_messages WHERE imei > ?";
const DELETE_POSITIONS: &str = "DELETE FROM positions WHERE rowid IN (
    SELECT rowid FROM positions WHERE imei = ? AND ts < ? ORDER BY ts LIMIT ?)";
const DELETE_MESSAGES: &str = "DELETE FROM device_messages WHERE rowid IN (
    SELECT rowid FROM device_messages WHERE imei = ? AND received_at < ? ORDER BY received_at LIMIT ?)";
const DELETE_QUARANTINED: &str = "DELETE FROM quarantined_records WHERE rowid IN (
    SELECT rowid FROM quarantined_records WHERE received_at < ? ORDER BY received_at LIMIT ?)";
/// The writer holds the file for a second at most.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
