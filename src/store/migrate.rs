//! Brings a database to the schema that this program was built with: `db-init/`, embedded.
//!
//! Safe to repeat, and safe when two do it at once: one applies, the other waits and finds it done.

use std::time::Duration;

use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};

use super::url::PostgresUrl;
use super::{DatabaseUrl, ErrorClass, Schema, SqliteStore, StoreError};

/// What `odograph migrate` may be asked for beyond the migrations.
#[derive(Clone, Copy, Debug, Default)]
pub struct MigrateOptions {
    /// The time that one chunk of the hypertable covers, for chunks made from now on. Nothing where there is none.
    pub chunk_interval: Option<Duration>,
    /// Makes an index on device time alone, for queries over all devices.
    pub index_time: bool,
}

/// What a migration did, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateReport {
    /// Names of the migrations that this run applied.
    pub applied: Vec<&'static str>,
    /// What `positions` is now.
    pub positions: PositionsTable,
}

/// What kind of table `positions` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PositionsTable {
    /// A hypertable.
    Hypertable {
        /// The version of TimescaleDB.
        timescaledb: String,
    },
    /// An ordinary table of PostgreSQL: works, but does not age well.
    Plain,
    /// A table in a SQLite file.
    Embedded,
}

/// Applies every migration that the database lacks, then the options.
///
/// # Errors
/// Each migration is a transaction: those before the failing one stay, and the next run goes on behind them.
pub async fn migrate(url: &DatabaseUrl, options: &MigrateOptions) -> Result<MigrateReport, StoreError> {
    match url {
        DatabaseUrl::Postgres(url) => migrate_postgres(url, options).await,
        DatabaseUrl::Sqlite(path) => SqliteStore::migrate(path, options).await,
    }
}

async fn migrate_postgres(url: &PostgresUrl, options: &MigrateOptions) -> Result<MigrateReport, StoreError> {
    let mut connection = connect(url).await?;
    // A lock of the session, which closing ends, also after an error. The migrator takes the same one within it.
    connection.lock().await.map_err(|error| StoreError::migrate("waiting for another migration", error))?;
    let before = applied(&mut connection).await?;
    MIGRATIONS.migrator().run(&mut connection).await.map_err(|error| StoreError::migrate(APPLYING, error))?;
    let applied = MIGRATIONS.missing_in(&before);
    let mut positions = positions_table(&mut connection).await?;
    if positions == PositionsTable::Plain && applied.is_empty() {
        // TimescaleDB may have been installed since.
        sqlx::raw_sql(HYPERTABLE).execute(&mut connection).await.map_err(|error| StoreError::sqlx(APPLYING, error))?;
        positions = positions_table(&mut connection).await?;
    }
    if let (Some(interval), PositionsTable::Hypertable { .. }) = (options.chunk_interval, &positions) {
        sqlx::query("SELECT set_chunk_time_interval('positions', make_interval(secs => $1))")
            .bind(interval.as_secs_f64())
            .execute(&mut connection)
            .await
            .map_err(|error| StoreError::sqlx("setting the chunk interval", error))?;
    }
    if options.index_time {
        sqlx::raw_sql(INDEX_TIME)
            .execute(&mut connection)
            .await
            .map_err(|error| StoreError::sqlx("making the index on time", error))?;
    }
    // Everything is committed; a close that fails changes nothing about that.
    let _ = connection.close().await;
    Ok(MigrateReport { applied, positions })
}

/// Connects to the first host that answers, and takes writes.
async fn connect(url: &PostgresUrl) -> Result<PgConnection, StoreError> {
    const CONNECTING: &str = "connecting to the database for migrations";
    let mut failure = None;
    for options in url.connect_options() {
        match tokio::time::timeout(url.connect_timeout(), connect_to_primary(&options)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => failure = Some(StoreError::sqlx(CONNECTING, error)),
            Err(_) => failure = Some(StoreError::timed_out(CONNECTING, url.connect_timeout())),
        }
    }
    Err(failure.unwrap_or_else(|| StoreError::new(ErrorClass::Refuses, CONNECTING, "no host")))
}

async fn connect_to_primary(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await?;
    if standby {
        return Err(sqlx::Error::Configuration("the server is a standby and takes no writes".into()));
    }
    Ok(connection)
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, StoreError> {
    let looking = |error| StoreError::sqlx("looking at the schema", error);
    let begun = sqlx::query_scalar(MIGRATIONS_TABLE_EXISTS).fetch_one(&mut *connection).await.map_err(looking)?;
    if begun { sqlx::query_scalar(APPLIED).fetch_all(connection).await.map_err(looking) } else { Ok(Vec::new()) }
}

async fn positions_table(connection: &mut PgConnection) -> Result<PositionsTable, StoreError> {
    let looking = |error| StoreError::sqlx("looking for TimescaleDB", error);
    let version: Option<String> =
        sqlx::query_scalar("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
            .fetch_optional(&mut *connection)
            .await
            .map_err(looking)?;
    let Some(timescaledb) = version else { return Ok(PositionsTable::Plain) };
    let is_hypertable: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables \
         WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = 'positions'::regclass)",
    )
    .fetch_one(connection)
    .await
    .map_err(looking)?;
    Ok(if is_hypertable { PositionsTable::Hypertable { timescaledb } } else { PositionsTable::Plain })
}

/// The embedded migrations of one kind of database: version, name, SQL. A version that was released is never changed.
pub(super) struct Migrations(&'static [(i64, &'static str, &'static str)]);

impl Migrations {
    pub(super) fn migrator(&self) -> Migrator {
        let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        Migrator::with_migrations(self.0.iter().map(migration).collect())
    }

    /// Names of the migrations that are not among the applied ones.
    pub(super) fn missing_in(&self, applied: &[i64]) -> Vec<&'static str> {
        self.0.iter().filter(|(version, ..)| !applied.contains(version)).map(|(_, name, _)| *name).collect()
    }

    /// Compares with what a database has. One that is unknown here makes it newer, whatever else is missing: this
    /// program could not mend it.
    pub(super) fn compare(&self, applied: &[i64]) -> Schema {
        if applied.iter().any(|version| !self.0.iter().any(|(known, ..)| known == version)) {
            Schema::Newer
        } else if self.missing_in(applied).is_empty() {
            Schema::Current
        } else {
            Schema::Outdated
        }
    }
}

/// For PostgreSQL.
pub(super) const MIGRATIONS: Migrations = Migrations(&[
    (1, "0001_positions", include_str!("../../db-init/0001_positions.sql")),
    (2, "0002_hypertable", HYPERTABLE),
    (3, "0003_ingest", include_str!("../../db-init/0003_ingest.sql")),
]);
/// For SQLite.
pub(super) const SQLITE_MIGRATIONS: Migrations = Migrations(&[
    (1, "0001_positions", include_str!("../../db-init/sqlite/0001_positions.sql")),
    (2, "0002_ingest", include_str!("../../db-init/sqlite/0002_ingest.sql")),
]);

/// Whether PostgreSQL has the table that sqlx keeps.
pub(super) const MIGRATIONS_TABLE_EXISTS: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
/// The versions that are applied, for both kinds.
pub(super) const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success";
pub(super) const APPLYING: &str = "applying db-init";

const HYPERTABLE: &str = include_str!("../../db-init/0002_hypertable.sql");
/// BRIN, not a B-tree: rows arrive nearly in the order of time, so a summary of each range of pages finds a time window,
/// takes a few kilobytes, and costs an insert next to nothing. A B-tree would be a second key's worth of work.
const INDEX_TIME: &str =
    "CREATE INDEX IF NOT EXISTS positions_ts_idx ON positions USING brin (ts) WITH (autosummarize)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_current_outdated_or_newer() {
        assert_eq!(MIGRATIONS.compare(&[]), Schema::Outdated);
        assert_eq!(MIGRATIONS.compare(&[1]), Schema::Outdated);
        let all: Vec<_> = MIGRATIONS.0.iter().rev().map(|(version, ..)| *version).collect();
        assert_eq!(MIGRATIONS.compare(&all), Schema::Current);
        assert_eq!(MIGRATIONS.compare(&[all, vec![9999]].concat()), Schema::Newer);
        assert_eq!(MIGRATIONS.compare(&[9999]), Schema::Newer);
    }
}
