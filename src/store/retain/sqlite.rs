//! Retention in SQLite. The file does not shrink: what was freed is written to again.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::{CLEARING, CONNECTING, DROPPING, PAUSE, Retained, Retention, STEP};
use crate::store::StoreError;

pub(super) async fn retain(path: &Path, retention: &Retention) -> Result<Retained, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).disable_statement_logging();
    let mut connection = options.connect().await.map_err(|error| StoreError::sqlx(CONNECTING, error))?;
    let retained = clear(&mut connection, retention).await;
    // The writer's own connection syncs the log; nothing is lost with this one.
    let _ = connection.close().await;
    retained
}

async fn clear(connection: &mut SqliteConnection, retention: &Retention) -> Result<Retained, StoreError> {
    let mut retained = Retained::default();
    if let Some(age) = retention.positions {
        let before = i64::try_from(since_epoch(age).as_millis()).unwrap_or(0);
        let mut device = -1_i64;
        while let Some(found) = next_device(connection, device).await? {
            device = found;
            retained.positions += in_steps(connection, DROPPING, DELETE_POSITIONS, &[device, before, STEP]).await?;
        }
    }
    if let Some(age) = retention.quarantine {
        let before = i64::try_from(since_epoch(age).as_micros()).unwrap_or(0);
        retained.quarantined = in_steps(connection, CLEARING, DELETE_QUARANTINED, &[before, STEP]).await?;
    }
    Ok(retained)
}

async fn next_device(connection: &mut SqliteConnection, device: i64) -> Result<Option<i64>, StoreError> {
    let next = sqlx::query_scalar("SELECT min(imei) FROM positions WHERE imei > ?").bind(device);
    next.fetch_one(connection).await.map_err(|error| StoreError::sqlx(DROPPING, error))
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

/// The time that lies an age back, since 1970.
fn since_epoch(age: Duration) -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age)
}

const DELETE_POSITIONS: &str = "DELETE FROM positions WHERE rowid IN (
    SELECT rowid FROM positions WHERE imei = ? AND ts < ? ORDER BY ts LIMIT ?)";
const DELETE_QUARANTINED: &str = "DELETE FROM quarantined_records WHERE rowid IN (
    SELECT rowid FROM quarantined_records WHERE received_at < ? ORDER BY received_at LIMIT ?)";
/// The writer holds the file for a second at most.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
