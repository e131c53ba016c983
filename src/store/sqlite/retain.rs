//! Retention in SQLite. The file does not shrink: SQLite reuses the freed pages.

use std::path::Path;
use std::time::SystemTime;

use sqlx::{Connection as _, SqliteConnection};

use super::operator_connection::{connect, failed};
use crate::store::error::store_error::StoreError;
use crate::store::model::retention::{
    CLEARING_QUARANTINE, CONNECTING_FOR_RETENTION, DELETING_MESSAGES, DROPPING_POSITIONS, RETENTION_PAUSE,
    RETENTION_STEP_ROWS, Retention, RetentionReport,
};
use crate::store::model::retention_clock::RetentionClock;

pub(crate) async fn retain(
    path: &Path,
    retention: &Retention,
    clock: &RetentionClock,
) -> Result<RetentionReport, StoreError> {
    let mut connection = connect(path, CONNECTING_FOR_RETENTION).await?;
    let report = clear(&mut connection, retention, clock).await;
    // The writer's own connection syncs the log; nothing is lost with this one.
    let _ = connection.close().await;
    report
}

async fn clear(
    connection: &mut SqliteConnection,
    retention: &Retention,
    clock: &RetentionClock,
) -> Result<RetentionReport, StoreError> {
    let mut report = RetentionReport::default();
    if let Some(age) = retention.positions {
        let (before, wanted) = (millis(clock.bound(age)), millis(clock.wanted(age)));
        let mut device = -1_i64;
        while let Some(found) = next(connection, DROPPING_POSITIONS, NEXT_OF_POSITIONS, device).await? {
            device = found;
            report.positions +=
                in_steps(connection, DROPPING_POSITIONS, DELETE_POSITIONS, &[device, before, RETENTION_STEP_ROWS])
                    .await?;
        }
        if let Some(waiting) = clock.waiting()
            && has_expired_rows(connection, wanted).await?
        {
            report.refused = Some(waiting);
        }
        let (before, mut device) = (micros(clock.bound(age)), -1_i64);
        while let Some(found) = next(connection, DELETING_MESSAGES, NEXT_OF_MESSAGES, device).await? {
            device = found;
            report.messages +=
                in_steps(connection, DELETING_MESSAGES, DELETE_MESSAGES, &[device, before, RETENTION_STEP_ROWS])
                    .await?;
        }
    }
    if let Some(age) = retention.quarantine {
        let before = micros(clock.bound(age));
        report.quarantined =
            in_steps(connection, CLEARING_QUARANTINE, DELETE_QUARANTINED, &[before, RETENTION_STEP_ROWS]).await?;
    }
    Ok(report)
}

async fn next(
    connection: &mut SqliteConnection,
    doing: &'static str,
    query: &'static str,
    device: i64,
) -> Result<Option<i64>, StoreError> {
    let next = sqlx::query_scalar(query).bind(device);
    next.fetch_one(connection).await.map_err(failed(doing))
}

/// Whether expired rows stay.
async fn has_expired_rows(connection: &mut SqliteConnection, wanted: i64) -> Result<bool, StoreError> {
    let exists = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM positions WHERE ts < ?)").bind(wanted);
    exists.fetch_one(connection).await.map_err(failed(DROPPING_POSITIONS))
}

/// Deletes in small transactions until one finds nothing more.
async fn in_steps(
    connection: &mut SqliteConnection,
    doing: &'static str,
    delete: &'static str,
    parameters: &[i64],
) -> Result<u64, StoreError> {
    let mut deleted = 0;
    loop {
        let query = parameters.iter().fold(sqlx::query(delete), |query, parameter| query.bind(*parameter));
        let done = query.execute(&mut *connection).await.map_err(failed(doing))?;
        deleted += done.rows_affected();
        if done.rows_affected() == 0 {
            return Ok(deleted);
        }
        tokio::time::sleep(RETENTION_PAUSE).await;
    }
}

fn micros(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(0)
}

fn millis(time: SystemTime) -> i64 {
    micros(time) / 1000
}

const NEXT_OF_POSITIONS: &str = "SELECT min(imei) FROM positions WHERE imei > ?";
const NEXT_OF_MESSAGES: &str = "SELECT min(imei) FROM device_messages WHERE imei > ?";
const DELETE_POSITIONS: &str = "DELETE FROM positions WHERE rowid IN (
    SELECT rowid FROM positions WHERE imei = ? AND ts < ? ORDER BY ts LIMIT ?)";
const DELETE_MESSAGES: &str = "DELETE FROM device_messages WHERE rowid IN (
    SELECT rowid FROM device_messages WHERE imei = ? AND received_at < ? ORDER BY received_at LIMIT ?)";
const DELETE_QUARANTINED: &str = "DELETE FROM quarantined_records WHERE rowid IN (
    SELECT rowid FROM quarantined_records WHERE received_at < ? ORDER BY received_at LIMIT ?)";
