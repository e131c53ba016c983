//! Connections of the operator's tools to an existing file: device table, quarantine, retention.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};

use crate::store::error::store_error::StoreError;

/// Opens an existing file.
pub(crate) async fn connect(path: &Path, doing: &'static str) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).disable_statement_logging();
    options.connect().await.map_err(failed(doing))
}

/// Turns a client's error into ours.
pub(crate) fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError + Copy {
    move |error| StoreError::sqlx(doing, error)
}

/// The writer holds the file for a second at most.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
