//! The table `devices` in a SQLite file, which cannot notify of changes.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, SqliteConnection};
use tokio::time::timeout;

use super::operator_connection::{connect, failed};
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::model::devices::{Devices, NoDeviceTable, READING_DEVICES, row_limit};

/// The table, read over a connection that is opened for each reading.
pub(crate) struct SqliteDevices(PathBuf);

impl SqliteDevices {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) async fn read(&mut self, most: usize) -> Result<Devices, StoreError> {
        let mut connection = connect(&self.0, READING_DEVICES).await?;
        let reading = timeout(PATIENCE, read_all(&mut connection, most)).await;
        let devices = reading.map_err(|_| StoreError::timed_out(READING_DEVICES, PATIENCE))?;
        let _ = connection.close().await;
        devices
    }

    /// Waits forever.
    pub(crate) async fn changed(&self) {
        pending::<()>().await;
    }
}

async fn read_all(connection: &mut SqliteConnection, most: usize) -> Result<Devices, StoreError> {
    let reading = failed(READING_DEVICES);
    let exists = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'devices' AND type IN ('table', 'view')");
    if exists.fetch_optional(&mut *connection).await.map_err(reading)?.is_none() {
        return Err(StoreError::new(ErrorClass::Refuses, READING_DEVICES, NoDeviceTable));
    }
    let mut devices = Devices::default();
    let query = sqlx::query_scalar::<_, Option<String>>("SELECT CAST(imei AS TEXT) FROM devices LIMIT ?");
    let mut rows = query.bind(row_limit(most)).fetch(connection);
    while let Some(imei) = rows.try_next().await.map_err(reading)? {
        devices.push(imei.as_deref());
    }
    devices.within(most).map_err(|error| StoreError::new(ErrorClass::Refuses, READING_DEVICES, error))
}

const PATIENCE: Duration = Duration::from_mins(1);
