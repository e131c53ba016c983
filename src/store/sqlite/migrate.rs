//! The steps of a migration of SQLite that every run takes, after the numbered files.

use sqlx::{Executor, SqliteConnection};

use crate::store::StoreError;
use crate::store::migrate::{APPLYING, MigrateOptions};

/// Makes what the options ask for, and the view over `devices` where that table is. Says whether the view is there.
pub(in crate::store) async fn steps(
    connection: &mut SqliteConnection,
    asked: &MigrateOptions,
) -> Result<bool, StoreError> {
    const DEVICES: &str = "SELECT EXISTS (SELECT * FROM sqlite_schema WHERE name = 'devices')";
    let failed = |doing| move |error| StoreError::sqlx(doing, error);
    if asked.index_time {
        let index = "CREATE INDEX IF NOT EXISTS positions_ts_idx ON positions (ts)";
        connection.execute(index).await.map_err(failed("making the index on time"))?;
    }
    if asked.standalone_devices {
        connection.execute(STANDALONE_DEVICES).await.map_err(failed(APPLYING))?;
    }
    let devices: bool = sqlx::query_scalar(DEVICES).fetch_one(&mut *connection).await.map_err(failed(APPLYING))?;
    if devices {
        connection.execute(BY_DEVICE).await.map_err(failed(APPLYING))?;
    }
    Ok(devices)
}

const STANDALONE_DEVICES: &str = include_str!("../../../db-init/sqlite/steps/standalone_devices.sql");
const BY_DEVICE: &str = include_str!("../../../db-init/sqlite/steps/by_device.sql");
