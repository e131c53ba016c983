//! Brings a database to the schema that this program was built with: `db-init/`, embedded.
//!
//! Safe to repeat, and safe when two do it at once: one applies, the other waits and finds it done.

use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::{Columnstore, DatabaseUrl, PositionsTable, Schema, SqliteStore, StoreError};

/// What `odograph migrate` may be asked for beyond the migrations.
#[derive(Clone, Copy, Debug, Default)]
pub struct MigrateOptions {
    /// The time that one chunk of the hypertable covers, for chunks made from now on. Nothing where there is none.
    pub chunk_interval: Option<Duration>,
    /// Makes an index on device time alone, for queries over all devices.
    pub index_time: bool,
    /// Installs what needs Directus' collections: the state of flags, their outbox, and the triggers.
    pub directus: bool,
    /// Makes a table `devices` where there is none. Otherwise it is Directus' and only read.
    pub standalone_devices: bool,
}

/// What a migration did, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateReport {
    /// Names of the migrations that this run applied.
    pub applied: Vec<&'static str>,
    /// Tables and views of migrations applied before that were gone and are there again; tables are empty.
    pub restored: Vec<String>,
    /// What `positions` is now.
    pub positions: PositionsTable,
    /// Whether old positions become columns.
    pub columnstore: Columnstore,
    /// Whether `positions_by_device` is there. It needs the table `devices`, and comes with the first run after that.
    pub by_device: bool,
}

/// Applies every migration that the database lacks, then the options.
///
/// # Errors
/// Each migration is a transaction: those before the failing one stay, and the next run goes on behind them.
pub async fn migrate(url: &DatabaseUrl, options: &MigrateOptions) -> Result<MigrateReport, StoreError> {
    match url {
        DatabaseUrl::Postgres(url) => super::postgres::migrate::migrate(url, options).await,
        DatabaseUrl::Sqlite(path) => SqliteStore::migrate(path, options).await,
    }
}

/// The embedded migrations of one kind of database: version, name, SQL. A version that was released is never changed.
pub(crate) struct Migrations(&'static [(i64, &'static str, &'static str)]);

impl Migrations {
    pub(crate) fn migrator(&self) -> Migrator {
        let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        Migrator::with_migrations(self.0.iter().map(migration).collect())
    }

    /// Version, name and SQL of each, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (i64, &'static str, &'static str)> {
        self.0.iter().copied()
    }

    /// Names of the migrations that are not among the applied ones.
    pub(crate) fn missing_in(&self, applied: &[i64]) -> Vec<&'static str> {
        self.0.iter().filter(|(version, ..)| !applied.contains(version)).map(|(_, name, _)| *name).collect()
    }

    /// Compares with what a database has. One that is unknown here makes it newer, whatever else is missing: this
    /// program could not mend it.
    pub(crate) fn compare(&self, applied: &[i64]) -> Schema {
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
pub(crate) const MIGRATIONS: Migrations = Migrations(&[
    (1, "0001_positions", include_str!("../../db-init/0001_positions.sql")),
    (2, "0002_hypertable", HYPERTABLE),
    (3, "0003_ingest", include_str!("../../db-init/0003_ingest.sql")),
    (4, "0004_flags", include_str!("../../db-init/0004_flags.sql")),
    (5, "0005_elements", include_str!("../../db-init/0005_elements.sql")),
    (6, "0006_views", include_str!("../../db-init/0006_views.sql")),
    (7, "0007_flag_windows", include_str!("../../db-init/0007_flag_windows.sql")),
    (8, "0008_quarantine_by_device", include_str!("../../db-init/0008_quarantine_by_device.sql")),
]);
/// For SQLite.
pub(crate) const SQLITE_MIGRATIONS: Migrations = Migrations(&[
    (1, "0001_positions", include_str!("../../db-init/sqlite/0001_positions.sql")),
    (2, "0002_ingest", include_str!("../../db-init/sqlite/0002_ingest.sql")),
    (3, "0003_flags", include_str!("../../db-init/sqlite/0003_flags.sql")),
    (4, "0004_elements", include_str!("../../db-init/sqlite/0004_elements.sql")),
    (5, "0005_views", include_str!("../../db-init/sqlite/0005_views.sql")),
    (6, "0006_flag_windows", include_str!("../../db-init/sqlite/0006_flag_windows.sql")),
    (7, "0007_quarantine_by_device", include_str!("../../db-init/sqlite/0007_quarantine_by_device.sql")),
]);

/// Whether PostgreSQL has the table that sqlx keeps.
pub(crate) const MIGRATIONS_TABLE_EXISTS: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
/// The versions that are applied, for both kinds.
pub(crate) const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success";
pub(crate) const APPLYING: &str = "applying db-init";

/// What needs Directus' collections. Safe to repeat, so it is run whenever it is asked for.
pub(crate) const DIRECTUS: &str = include_str!("../../db-init/directus/0001_position_flags.sql");
pub(crate) const HYPERTABLE: &str = include_str!("../../db-init/0002_hypertable.sql");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_current_outdated_or_newer() {
        assert_eq!(MIGRATIONS.compare(&[]), Schema::Outdated);
        assert_eq!(MIGRATIONS.compare(&[1]), Schema::Outdated);
        let mut every: Vec<_> = MIGRATIONS.all().map(|(version, ..)| version).collect();
        every.reverse();
        assert_eq!(MIGRATIONS.compare(&every), Schema::Current);
        every.push(9999);
        assert_eq!(MIGRATIONS.compare(&every), Schema::Newer);
        assert_eq!(MIGRATIONS.compare(&[9999]), Schema::Newer);
    }

    #[test]
    fn a_name_begins_with_its_version_and_versions_ascend() {
        for migrations in [MIGRATIONS, SQLITE_MIGRATIONS] {
            let versions: Vec<_> = migrations.all().map(|(version, ..)| version).collect();
            assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
            assert!(migrations.all().all(|(version, name, _)| name.starts_with(&format!("{version:04}_"))));
        }
    }
}
