//! Migrations of SQLite: the numbered files in one transaction, then the steps that every run takes.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};

use super::connection::{make_directory, open, options};
use super::operator_connection::{self, failed};
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::model::features::Features;
use crate::store::model::migration::{
    APPLIED_MIGRATIONS, APPLYING_MIGRATIONS, MigrateOptions, MigrateReport, Migrations, Schema,
};

/// Makes the file if it is missing, and brings it to the schema of this program.
pub(crate) async fn migrate(path: &Path, asked: &MigrateOptions) -> Result<MigrateReport, StoreError> {
    if asked.directus {
        let remedy = "Directus' side needs PostgreSQL: set DATABASE_URL to that database";
        return Err(StoreError::new(ErrorClass::Refuses, APPLYING_MIGRATIONS, remedy));
    }
    make_directory(path)?;
    let mut connection = open(&options(path)).await?;
    let (schema, applied) = apply_missing(&mut connection).await?;
    if schema == Schema::Newer {
        return Err(StoreError::new(ErrorClass::Refuses, APPLYING_MIGRATIONS, "the schema is newer than this program"));
    }
    let by_device = apply_options(&mut connection, asked).await?;
    connection.close().await.map_err(failed("closing the database file"))?;
    let Features { positions, columnstore } = Features::EMBEDDED;
    Ok(MigrateReport { applied, restored: Vec::new(), positions, columnstore, by_device })
}

/// Applies the missing migrations, all in one transaction: sqlx's migrator takes no lock in SQLite. Leaves a newer
/// schema as it is.
pub(super) async fn apply_missing(
    connection: &mut SqliteConnection,
) -> Result<(Schema, Vec<&'static str>), StoreError> {
    let applying = failed(APPLYING_MIGRATIONS);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(applying)?;
    let applied = applied(&mut transaction).await?;
    let schema = MIGRATIONS.compare(&applied);
    if schema != Schema::Outdated {
        return Ok((schema, Vec::new()));
    }
    let migrated = MIGRATIONS.migrator().run(&mut *transaction).await;
    migrated.map_err(|error| StoreError::migrate(APPLYING_MIGRATIONS, error))?;
    transaction.commit().await.map_err(applying)?;
    Ok((Schema::Current, MIGRATIONS.missing_in(&applied)))
}

/// Compares the schema of an existing file with this program's.
pub(crate) async fn schema_of_file(path: &Path) -> Result<Schema, StoreError> {
    let mut connection = operator_connection::connect(path, "looking at the schema").await?;
    let schema = schema(&mut connection).await;
    let _ = connection.close().await;
    schema
}

/// Compares the applied migrations with those of this program.
pub(super) async fn schema(connection: &mut SqliteConnection) -> Result<Schema, StoreError> {
    Ok(MIGRATIONS.compare(&applied(connection).await?))
}

async fn applied(connection: &mut SqliteConnection) -> Result<Vec<i64>, StoreError> {
    const TABLE_EXISTS: &str = "SELECT EXISTS (SELECT * FROM sqlite_schema WHERE name = '_sqlx_migrations')";
    let looking = failed("looking at the schema");
    let exists: bool = sqlx::query_scalar(TABLE_EXISTS).fetch_one(&mut *connection).await.map_err(looking)?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(APPLIED_MIGRATIONS).fetch_all(connection).await.map_err(looking)
}

/// Makes what the options ask for, and the view over `devices` if that table exists. Returns whether the view exists.
async fn apply_options(connection: &mut SqliteConnection, asked: &MigrateOptions) -> Result<bool, StoreError> {
    const DEVICES: &str = "SELECT EXISTS (SELECT * FROM sqlite_schema WHERE name = 'devices')";
    let applying = failed(APPLYING_MIGRATIONS);
    if asked.index_time {
        let index = "CREATE INDEX IF NOT EXISTS positions_ts_idx ON positions (ts)";
        connection.execute(index).await.map_err(failed("making the index on time"))?;
    }
    if asked.standalone_devices {
        connection.execute(STANDALONE_DEVICES).await.map_err(applying)?;
    }
    let devices: bool = sqlx::query_scalar(DEVICES).fetch_one(&mut *connection).await.map_err(applying)?;
    if devices {
        connection.execute(BY_DEVICE).await.map_err(applying)?;
    }
    Ok(devices)
}

const MIGRATIONS: Migrations = Migrations::new(&[
    (1, "0001_positions", include_str!("../../../db-init/sqlite/0001_positions.sql")),
    (2, "0002_ingest", include_str!("../../../db-init/sqlite/0002_ingest.sql")),
    (3, "0003_flags", include_str!("../../../db-init/sqlite/0003_flags.sql")),
    (4, "0004_elements", include_str!("../../../db-init/sqlite/0004_elements.sql")),
    (5, "0005_views", include_str!("../../../db-init/sqlite/0005_views.sql")),
    (6, "0006_flag_windows", include_str!("../../../db-init/sqlite/0006_flag_windows.sql")),
    (7, "0007_quarantine_by_device", include_str!("../../../db-init/sqlite/0007_quarantine_by_device.sql")),
    (8, "0008_messages", include_str!("../../../db-init/sqlite/0008_messages.sql")),
    (9, "0009_element_meaning", include_str!("../../../db-init/sqlite/0009_element_meaning.sql")),
]);
const STANDALONE_DEVICES: &str = include_str!("../../../db-init/sqlite/steps/standalone_devices.sql");
const BY_DEVICE: &str = include_str!("../../../db-init/sqlite/steps/by_device.sql");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_with_its_version_and_versions_ascend() {
        let versions: Vec<_> = MIGRATIONS.all().map(|(version, ..)| version).collect();
        assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
        assert!(MIGRATIONS.all().all(|(version, name, _)| name.starts_with(&format!("{version:04}_"))));
    }
}
