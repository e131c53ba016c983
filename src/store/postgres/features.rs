//! What a PostgreSQL server offers beyond plain tables: the version of TimescaleDB, and its columnstore.

use tokio_postgres::Client;

use super::operator_connection::{connect, failed};
use super::url::PostgresUrl;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::model::features::{Columnstore, Features, PositionsTable};

/// Looks up what a migrated database offers.
pub(crate) async fn of_database(url: &PostgresUrl) -> Result<Features, StoreError> {
    let client = connect(url, "connecting to the database").await?;
    check_version(&client).await?;
    of_client(&client).await
}

/// Looks up what the server offers.
pub(crate) async fn of_client(client: &Client) -> Result<Features, StoreError> {
    let looking = || failed("looking for TimescaleDB");
    let Some(timescaledb) = client
        .query_opt("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'", &[])
        .await
        .map_err(looking())?
        .map(|row| row.get(0))
    else {
        return Ok(Features { positions: PositionsTable::Plain, columnstore: Columnstore::NoChunks });
    };
    let Some(row) = client.query_opt(HYPERTABLE, &[]).await.map_err(looking())? else {
        return Ok(Features { positions: PositionsTable::Plain, columnstore: Columnstore::NoChunks });
    };
    let columnstore = match (row.get(0), row.get::<_, Option<&str>>(1)) {
        (true, _) => Columnstore::On,
        (false, Some("timescale")) => Columnstore::Off,
        (false, _) => Columnstore::NotInThisBuild,
    };
    Ok(Features { positions: PositionsTable::Hypertable { timescaledb }, columnstore })
}

/// Refuses a TimescaleDB that the migrations cannot work with, installed or available.
pub(crate) async fn check_version(client: &Client) -> Result<(), StoreError> {
    const CHECKING: &str = "checking the version of TimescaleDB";
    let Some(row) = client.query_opt(VERSION, &[]).await.map_err(failed(CHECKING))? else { return Ok(()) };
    let (version, installed): (&str, bool) = (row.get(0), row.get(1));
    if supported(version) {
        return Ok(());
    }
    let (major, minor) = OLDEST;
    let remedy = if installed {
        "install a later package on the server, restart it, and run ALTER EXTENSION timescaledb UPDATE as the first \
         statement of a new `psql -X`"
    } else {
        "install a later package on the server"
    };
    let old = format!("TimescaleDB {version} is too old, odograph needs {major}.{minor} or later: {remedy}");
    Err(StoreError::new(ErrorClass::Refuses, CHECKING, old))
}

/// Accepts what cannot be read as a version: the migrations report what they lack.
fn supported(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
        _ => true,
    }
}

/// `by_range` exists since 2.13.
const OLDEST: (u32, u32) = (2, 13);
const VERSION: &str = "SELECT version, installed FROM (
        SELECT extversion AS version, true AS installed FROM pg_extension WHERE extname = 'timescaledb'
        UNION ALL
        SELECT default_version, false FROM pg_available_extensions WHERE name = 'timescaledb'
            AND EXISTS (SELECT FROM pg_settings WHERE name LIKE 'timescaledb.%')
    ) AS found ORDER BY installed DESC LIMIT 1";
const HYPERTABLE: &str = "SELECT compression_enabled, current_setting('timescaledb.license', true)
    FROM timescaledb_information.hypertables
    WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = to_regclass('positions')";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_2_13_on_are_supported() {
        for version in ["2.13.0", "2.13.0-dev", "2.29.1", "3.0.0", "10.0"] {
            assert!(supported(version), "{version}");
        }
        for version in ["1.7.5", "2.0.0", "2.9.3", "2.12.2"] {
            assert!(!supported(version), "{version}");
        }
    }
}
