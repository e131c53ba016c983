//! The devices in a SQLite file, where nobody tells of changes.

use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::time::timeout;

use crate::store::StoreError;
use crate::store::devices::{Devices, READING, no_table};

pub(crate) async fn read(path: &Path, most: usize) -> Result<Devices, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).disable_statement_logging();
    let mut connection = options.connect().await.map_err(|error| StoreError::sqlx(READING, error))?;
    let reading = timeout(PATIENCE, read_all(&mut connection, most)).await;
    let devices = reading.map_err(|_| StoreError::timed_out(READING, PATIENCE))?;
    let _ = connection.close().await;
    devices
}

async fn read_all(connection: &mut SqliteConnection, most: usize) -> Result<Devices, StoreError> {
    let failed = |error| StoreError::sqlx(READING, error);
    let there = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'devices' AND type IN ('table', 'view')");
    if there.fetch_optional(&mut *connection).await.map_err(failed)?.is_none() {
        return Err(no_table());
    }
    let mut devices = Devices::default();
    let most_rows = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
    let query = sqlx::query_scalar::<_, Option<String>>("SELECT CAST(imei AS TEXT) FROM devices LIMIT ?");
    let mut rows = query.bind(most_rows).fetch(connection);
    while let Some(imei) = rows.try_next().await.map_err(failed)? {
        devices.push(imei.as_deref());
    }
    devices.within(most)
}

/// The writer holds the file for a second at most.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_mins(1);
