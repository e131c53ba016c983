//! Migrations of PostgreSQL: what is missing, one transaction each, and then the steps that every run takes.
//!
//! Over the same client as the batches, so that there is one implementation of TLS with one idea of which certificates
//! are trusted. The table of what was applied is the one that sqlx keeps, as in SQLite.

use tokio_postgres::Client;

use crate::store::Schema;
use crate::store::migrate::{APPLYING, DIRECTUS, HYPERTABLE, MIGRATIONS, MigrateOptions, MigrateReport};
use crate::store::model::column_set::BASE_COLUMNS;
use crate::store::postgres::features::{Features, check_version};
use crate::store::postgres::session;
use crate::store::{ELEMENTS, ErrorClass, PositionsTable, PostgresUrl, StoreError};

pub(crate) async fn migrate(url: &PostgresUrl, options: &MigrateOptions) -> Result<MigrateReport, StoreError> {
    let mut client = session::connect_to_primary(url, "connecting to the database for migrations").await?;
    // A lock of the session, which closing ends, also after an error.
    let waiting = session::failed("waiting for another migration");
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(waiting)?;
    check_version(&client).await?;
    let before = begun(&client).await?;
    let applied = apply_missing(&mut client, &before).await?;
    let restored = restore(&mut client).await?;
    let mut features = Features::of(&client).await?;
    if features.positions == PositionsTable::Plain && applied.is_empty() {
        // TimescaleDB may have been installed since.
        step(&mut client, "0002_hypertable", HYPERTABLE).await?;
        features = Features::of(&client).await?;
    }
    if let (Some(interval), PositionsTable::Hypertable { .. }) = (options.chunk_interval, &features.positions) {
        let statement = "SELECT set_chunk_time_interval('positions', make_interval(secs => $1))";
        let failed = session::failed("setting the chunk interval");
        client.execute(statement, &[&interval.as_secs_f64()]).await.map_err(failed)?;
    }
    if options.index_time {
        client.batch_execute(INDEX_TIME).await.map_err(session::failed("making the index on time"))?;
    }
    if options.standalone_devices {
        step(&mut client, "standalone_devices", STANDALONE_DEVICES).await?;
    }
    step(&mut client, "by_device", BY_DEVICE).await?;
    step(&mut client, "columnstore", COLUMNSTORE).await?;
    if options.directus {
        step(&mut client, "directus/0001_position_flags", DIRECTUS).await?;
    }
    let Features { positions, columnstore } = Features::of(&client).await?;
    let by_device = exists(&client, "positions_by_device").await?;
    Ok(MigrateReport { applied, restored, positions, columnstore, by_device })
}

/// The versions that were applied before. Refuses a database that this program does not know.
async fn begun(client: &Client) -> Result<Vec<i64>, StoreError> {
    client.batch_execute(MIGRATIONS_TABLE).await.map_err(session::failed(APPLYING))?;
    let rows = client.query("SELECT version, checksum FROM _sqlx_migrations WHERE success", &[]).await;
    let rows = rows.map_err(session::failed(LOOKING))?;
    let before: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    if MIGRATIONS.compare(&before) == Schema::Newer {
        let newer = "the schema is newer than this program: use the odograph that made it, or a later one";
        return Err(StoreError::new(ErrorClass::Refuses, APPLYING, newer));
    }
    let migrator = MIGRATIONS.migrator();
    for row in &rows {
        let (version, checksum): (i64, &[u8]) = (row.get(0), row.get(1));
        if migrator.iter().any(|known| known.version == version && *known.checksum != *checksum) {
            let changed =
                format!("migration {version} is not the one that this database has: it was made by another build");
            return Err(StoreError::new(ErrorClass::Refuses, APPLYING, changed));
        }
    }
    Ok(before)
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
        let failed = || session::failed_in(APPLYING, name);
        let transaction = client.transaction().await.map_err(failed())?;
        transaction.batch_execute(sql).await.map_err(failed())?;
        transaction.execute(RECORD, &[&version, &name, &&*migration.checksum]).await.map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        names.push(name);
    }
    Ok(names)
}

/// Makes again what somebody dropped: every migration may be run over what is there, and its assertion then says what it
/// could not mend, such as a missing column.
async fn restore(client: &mut Client) -> Result<Vec<String>, StoreError> {
    let mut gone = Vec::new();
    for name in MIGRATIONS.all().flat_map(|(.., sql)| tables_of(sql)).chain(VIEWS) {
        if !exists(client, name).await? {
            gone.push(name.to_owned());
        }
    }
    if gone.is_empty() && columns_are_there(client).await? {
        return Ok(gone);
    }
    for (_, name, sql) in MIGRATIONS.all() {
        step(client, name, sql).await?;
    }
    Ok(gone)
}

fn tables_of(sql: &'static str) -> impl Iterator<Item = &'static str> {
    sql.lines().filter_map(|line| line.strip_prefix("CREATE TABLE IF NOT EXISTS ")?.split_whitespace().next())
}

async fn columns_are_there(client: &Client) -> Result<bool, StoreError> {
    const COUNT: &str = "SELECT count(*) FROM pg_attribute WHERE attrelid IN ('positions'::regclass, \
                         'latest_positions'::regclass) AND attnum > 0 AND NOT attisdropped AND attname = ANY ($1)";
    let names: Vec<_> =
        BASE_COLUMNS.into_iter().chain(ELEMENTS.iter().map(|element| element.name)).chain(["io"]).collect();
    let found: i64 = client.query_one(COUNT, &[&names]).await.map_err(session::failed(LOOKING))?.get(0);
    Ok(usize::try_from(found) == Ok(2 * names.len()))
}

async fn exists(client: &Client, name: &str) -> Result<bool, StoreError> {
    let found = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await;
    Ok(found.map_err(session::failed(LOOKING))?.get(0))
}

async fn step(client: &mut Client, name: &'static str, sql: &str) -> Result<(), StoreError> {
    let failed = || session::failed_in(APPLYING, name);
    let transaction = client.transaction().await.map_err(failed())?;
    transaction.batch_execute(sql).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}

const LOOKING: &str = "looking at the schema";
/// "odogmigr", so that no other program takes the same one by chance.
const LOCK: i64 = 0x6f64_6f67_6d69_6772;
const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version        bigint      PRIMARY KEY,
    description    text        NOT NULL,
    installed_on   timestamptz NOT NULL DEFAULT now(),
    success        boolean     NOT NULL,
    checksum       bytea       NOT NULL,
    execution_time bigint      NOT NULL)";
const VIEWS: [&str; 2] = ["positions_named", "latest_named"];
const STANDALONE_DEVICES: &str = include_str!("../../../db-init/steps/standalone_devices.sql");
const BY_DEVICE: &str = include_str!("../../../db-init/steps/by_device.sql");
const COLUMNSTORE: &str = include_str!("../../../db-init/steps/columnstore.sql");
/// BRIN, not a B-tree: rows arrive nearly in the order of time, so a summary of each range of pages finds a time window,
/// takes a few kilobytes, and costs an insert next to nothing. A B-tree would be a second key's worth of work.
const INDEX_TIME: &str =
    "CREATE INDEX IF NOT EXISTS positions_ts_idx ON positions USING brin (ts) WITH (autosummarize)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_migrations_are_found_in_their_text() {
        let tables: Vec<_> = MIGRATIONS.all().flat_map(|(.., sql)| tables_of(sql)).collect();
        for table in ["positions", "latest_positions", "position_flag_ledger", "position_corrections", "io_elements"] {
            assert!(tables.contains(&table), "{table} is not in {tables:?}");
        }
    }
}
