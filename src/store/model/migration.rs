//! Migrations: what can be asked for, what a run reports, and how the applied versions compare with the embedded ones.

use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::features::{Columnstore, PositionsTable};

/// What `odograph migrate` can do in addition to the migrations.
#[derive(Clone, Copy, Debug, Default)]
pub struct MigrateOptions {
    /// The time that one chunk of the hypertable covers, for chunks made from now on. No effect without a hypertable.
    pub chunk_interval: Option<Duration>,
    /// Makes an index on device time alone, for queries over all devices.
    pub index_time: bool,
    /// Installs what needs Directus' collections: the state of flags, their outbox, and the triggers.
    pub directus: bool,
    /// Makes a table `devices` if there is none. Otherwise it belongs to Directus and is only read.
    pub standalone_devices: bool,
}

/// What a run applied, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateReport {
    /// Names of the migrations that this run applied.
    pub applied: Vec<&'static str>,
    /// Tables and views of earlier migrations that were missing and exist again. Such a table is empty.
    pub restored: Vec<String>,
    /// What `positions` is now.
    pub positions: PositionsTable,
    /// Whether old positions are compressed into columns.
    pub columnstore: Columnstore,
    /// Whether the view `positions_by_device` exists. It needs the table `devices`, and is made by the first run after
    /// it.
    pub by_device: bool,
}

/// The state of a database's schema, compared with the `db-init/` of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Every migration is applied.
    Current,
    /// Some are missing: `odograph migrate` applies them.
    Outdated,
    /// The database has migrations that this program does not know: the program is older than the database.
    Newer,
}

/// The embedded migrations of one database: version, name, SQL. A released version never changes.
pub(crate) struct Migrations(&'static [(i64, &'static str, &'static str)]);

impl Migrations {
    pub(crate) const fn new(all: &'static [(i64, &'static str, &'static str)]) -> Self {
        Self(all)
    }

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

    /// Compares with the versions that a database has. A single unknown version makes it newer, whatever else is
    /// missing: this program could not repair it.
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

/// The versions that are applied, from the table that sqlx keeps.
pub(crate) const APPLIED_MIGRATIONS: &str = "SELECT version FROM _sqlx_migrations WHERE success";
pub(crate) const APPLYING_MIGRATIONS: &str = "applying db-init";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_current_outdated_or_newer() {
        let migrations = Migrations::new(&[(1, "0001_one", ""), (2, "0002_two", "")]);
        assert_eq!(migrations.compare(&[]), Schema::Outdated);
        assert_eq!(migrations.compare(&[1]), Schema::Outdated);
        assert_eq!(migrations.compare(&[2, 1]), Schema::Current);
        assert_eq!(migrations.compare(&[2, 1, 9999]), Schema::Newer);
        assert_eq!(migrations.compare(&[9999]), Schema::Newer);
    }
}
