//! Migrations of PostgreSQL: the missing ones, a transaction each, then the steps that every run takes.
//!
//! They run over the same client as the batches, so that one implementation of TLS decides which certificates are
//! trusted. The applied versions are in the table that sqlx keeps, as in SQLite.

use tokio_postgres::Client;

use super::connection::Connection;
use super::features::{check_version, of_client};
use super::operator_connection;
use super::store::PostgresConnect;
use super::url::PostgresUrl;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::model::column_set::BASE_COLUMNS;
use crate::store::model::columns::ELEMENTS;
use crate::store::model::features::{Features, PositionsTable};
use crate::store::model::migration::{
    APPLIED_MIGRATIONS, APPLYING_MIGRATIONS, MigrateOptions, MigrateReport, Migrations, Schema,
};
use crate::store::session_slot::bounded;
use crate::store::statements::Connect as _;

/// Brings the database to the schema of this program, and makes what the options ask for.
pub(crate) async fn migrate(url: &PostgresUrl, options: &MigrateOptions) -> Result<MigrateReport, StoreError> {
    let mut client = operator_connection::connect_to_primary(url, "connecting to the database for migrations").await?;
    // The session holds the lock, so it ends with the connection, also after an error.
    let waiting = operator_connection::failed("waiting for another migration");
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(waiting)?;
    check_version(&client).await?;
    let before = applied_before(&client).await?;
    let applied = apply_missing(&mut client, &before).await?;
    let restored = restore(&mut client).await?;
    let mut features = of_client(&client).await?;
    if features.positions == PositionsTable::Plain && applied.is_empty() {
        // TimescaleDB may have been installed since.
        step(&mut client, "0002_hypertable", HYPERTABLE).await?;
        features = of_client(&client).await?;
    }
    if let (Some(interval), PositionsTable::Hypertable { .. }) = (options.chunk_interval, &features.positions) {
        let statement = "SELECT set_chunk_time_interval('positions', make_interval(secs => $1))";
        let failed = operator_connection::failed("setting the chunk interval");
        client.execute(statement, &[&interval.as_secs_f64()]).await.map_err(failed)?;
    }
    if options.index_time {
        client.batch_execute(INDEX_TIME).await.map_err(operator_connection::failed("making the index on time"))?;
    }
    if options.standalone_devices {
        step(&mut client, "standalone_devices", STANDALONE_DEVICES).await?;
    }
    step(&mut client, "by_device", BY_DEVICE).await?;
    step(&mut client, "columnstore", COLUMNSTORE).await?;
    if options.directus {
        step(&mut client, "directus/0001_position_flags", DIRECTUS).await?;
    }
    let Features { positions, columnstore } = of_client(&client).await?;
    let by_device = exists(&client, "positions_by_device").await?;
    Ok(MigrateReport { applied, restored, positions, columnstore, by_device })
}

/// Reads the versions that were applied before. Refuses a database that this program does not know.
async fn applied_before(client: &Client) -> Result<Vec<i64>, StoreError> {
    client.batch_execute(MIGRATIONS_TABLE).await.map_err(operator_connection::failed(APPLYING_MIGRATIONS))?;
    let rows = client.query("SELECT version, checksum FROM _sqlx_migrations WHERE success", &[]).await;
    let rows = rows.map_err(operator_connection::failed(LOOKING))?;
    let before: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    if MIGRATIONS.compare(&before) == Schema::Newer {
        let newer = "the schema is newer than this program: use the odograph that made it, or a later one";
        return Err(StoreError::new(ErrorClass::Refuses, APPLYING_MIGRATIONS, newer));
    }
    let migrator = MIGRATIONS.migrator();
    for row in &rows {
        let (version, checksum): (i64, &[u8]) = (row.get(0), row.get(1));
        if migrator.iter().any(|known| known.version == version && *known.checksum != *checksum) {
            let changed =
                format!("migration {version} differs from the one in this database, which was made by another build");
            return Err(StoreError::new(ErrorClass::Refuses, APPLYING_MIGRATIONS, changed));
        }
    }
    Ok(before)
}

/// Compares the schema of a database with this program's.
pub(crate) async fn schema_of_database(url: &PostgresUrl) -> Result<Schema, StoreError> {
    let mut connection = PostgresConnect::new(url)?.connect().await?;
    bounded(LOOKING, schema(&mut connection)).await
}

/// Compares the applied migrations with those of this program, over a connection that writes batches.
pub(super) async fn schema(connection: &mut Connection) -> Result<Schema, StoreError> {
    let looking = |error| StoreError::postgres(LOOKING, error);
    let exists = connection.query(LOOKING, MIGRATIONS_TABLE_EXISTS, &[]).await?;
    if !exists.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        return Ok(MIGRATIONS.compare(&[]));
    }
    let rows = connection.query(LOOKING, APPLIED_MIGRATIONS, &[]).await?;
    let applied: Vec<_> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(looking)?;
    Ok(MIGRATIONS.compare(&applied))
}

async fn apply_missing(client: &mut Client, before: &[i64]) -> Result<Vec<&'static str>, StoreError> {
    const RECORD: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                          VALUES ($1, $2, true, $3, -1)";
    let migrator = MIGRATIONS.migrator();
    let mut names = Vec::new();
    for ((version, name, sql), migration) in MIGRATIONS.all().zip(migrator.iter()) {
        if before.contains(&version) {
            continue;
        }
        let failed = || operator_connection::failed_in(APPLYING_MIGRATIONS, name);
        let transaction = client.transaction().await.map_err(failed())?;
        transaction.batch_execute(sql).await.map_err(failed())?;
        transaction.execute(RECORD, &[&version, &name, &&*migration.checksum]).await.map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        names.push(name);
    }
    Ok(names)
}

/// Makes dropped tables and views again. Every migration can run over what exists; its assertion then names what it
/// could not repair, such as a missing column.
async fn restore(client: &mut Client) -> Result<Vec<String>, StoreError> {
    let mut missing = Vec::new();
    for name in MIGRATIONS.all().flat_map(|(.., sql)| tables_of(sql)).chain(VIEWS) {
        if !exists(client, name).await? {
            missing.push(name.to_owned());
        }
    }
    if missing.is_empty() && has_all_columns(client).await? {
        return Ok(missing);
    }
    for (_, name, sql) in MIGRATIONS.all() {
        step(client, name, sql).await?;
    }
    Ok(missing)
}

fn tables_of(sql: &'static str) -> impl Iterator<Item = &'static str> {
    sql.lines().filter_map(|line| line.strip_prefix("CREATE TABLE IF NOT EXISTS ")?.split_whitespace().next())
}

async fn has_all_columns(client: &Client) -> Result<bool, StoreError> {
    const COUNT: &str = "SELECT count(*) FROM pg_attribute WHERE attrelid IN ('positions'::regclass, \
                         'latest_positions'::regclass) AND attnum > 0 AND NOT attisdropped AND attname = ANY ($1)";
    let names: Vec<_> =
        BASE_COLUMNS.into_iter().chain(ELEMENTS.iter().map(|element| element.name)).chain(["io"]).collect();
    let found: i64 = client.query_one(COUNT, &[&names]).await.map_err(operator_connection::failed(LOOKING))?.get(0);
    Ok(usize::try_from(found) == Ok(2 * names.len()))
}

async fn exists(client: &Client, name: &str) -> Result<bool, StoreError> {
    let found = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await;
    Ok(found.map_err(operator_connection::failed(LOOKING))?.get(0))
}

async fn step(client: &mut Client, name: &'static str, sql: &str) -> Result<(), StoreError> {
    let failed = || operator_connection::failed_in(APPLYING_MIGRATIONS, name);
    let transaction = client.transaction().await.map_err(failed())?;
    transaction.batch_execute(sql).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}

/// A released version never changes.
const MIGRATIONS: Migrations = Migrations::new(&[
    (1, "0001_positions", include_str!("../../../db-init/0001_positions.sql")),
    (2, "0002_hypertable", HYPERTABLE),
    (3, "0003_ingest", include_str!("../../../db-init/0003_ingest.sql")),
    (4, "0004_flags", include_str!("../../../db-init/0004_flags.sql")),
    (5, "0005_elements", include_str!("../../../db-init/0005_elements.sql")),
    (6, "0006_views", include_str!("../../../db-init/0006_views.sql")),
    (7, "0007_flag_windows", include_str!("../../../db-init/0007_flag_windows.sql")),
    (8, "0008_quarantine_by_device", include_str!("../../../db-init/0008_quarantine_by_device.sql")),
    (9, "0009_messages", include_str!("../../../db-init/0009_messages.sql")),
    (10, "0010_element_meaning", include_str!("../../../db-init/0010_element_meaning.sql")),
]);
const HYPERTABLE: &str = include_str!("../../../db-init/0002_hypertable.sql");
/// What needs Directus' collections. Safe to repeat, so every run that asks for it runs it.
const DIRECTUS: &str = include_str!("../../../db-init/directus/0001_position_flags.sql");
const STANDALONE_DEVICES: &str = include_str!("../../../db-init/steps/standalone_devices.sql");
const BY_DEVICE: &str = include_str!("../../../db-init/steps/by_device.sql");
const COLUMNSTORE: &str = include_str!("../../../db-init/steps/columnstore.sql");
const LOOKING: &str = "looking at the schema";
/// "odogmigr", so that no other program takes the same number by chance.
const LOCK: i64 = 0x6f64_6f67_6d69_6772;
/// Whether the table exists that sqlx keeps.
const MIGRATIONS_TABLE_EXISTS: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version        bigint      PRIMARY KEY,
    description    text        NOT NULL,
    installed_on   timestamptz NOT NULL DEFAULT now(),
    success        boolean     NOT NULL,
    checksum       bytea       NOT NULL,
    execution_time bigint      NOT NULL)";
const VIEWS: [&str; 2] = ["positions_named", "latest_named"];
/// BRIN, not a B-tree: rows arrive nearly in the order of time, so a summary of each range of pages finds a time
/// window, takes a few kilobytes, and costs an insert next to nothing. A B-tree would cost as much as a second key.
const INDEX_TIME: &str =
    "CREATE INDEX IF NOT EXISTS positions_ts_idx ON positions USING brin (ts) WITH (autosummarize)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_with_its_version_and_versions_ascend() {
        let versions: Vec<_> = MIGRATIONS.all().map(|(version, ..)| version).collect();
        assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
        assert!(MIGRATIONS.all().all(|(version, name, _)| name.starts_with(&format!("{version:04}_"))));
    }

    #[test]
    fn the_tables_of_the_migrations_are_found_in_their_text() {
        let tables: Vec<_> = MIGRATIONS.all().flat_map(|(.., sql)| tables_of(sql)).collect();
        for table in ["positions", "latest_positions", "position_flag_ledger", "position_corrections", "io_elements"] {
            assert!(tables.contains(&table), "{table} is not in {tables:?}");
        }
    }
}
