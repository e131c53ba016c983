//! What a database has beyond plain tables, and what it costs where it has less.

use tokio_postgres::Client;

use super::session;
use crate::store::{DatabaseUrl, ErrorClass, StoreError};

/// What this server's build of TimescaleDB, or its lack, makes of `positions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// What `positions` is.
    pub positions: PositionsTable,
    /// Whether old positions become columns.
    pub columnstore: Columnstore,
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

/// Whether chunks of `positions` that grow old become columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columnstore {
    /// They do.
    On,
    /// They could, and do not: `odograph migrate` was not run since, or the operator switched it off.
    Off,
    /// This build of TimescaleDB has none: it is the one under the Apache licence.
    NotInThisBuild,
    /// There are no chunks.
    NoChunks,
}

impl Features {
    /// What is missing and what that costs; `None` where all is there, and for a SQLite file, which was never to have it.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        match (&self.positions, self.columnstore) {
            (PositionsTable::Embedded, _) | (PositionsTable::Hypertable { .. }, Columnstore::On) => None,
            (PositionsTable::Plain, _) => Some(
                "TimescaleDB is not there, so positions is an ordinary table: everything works, but old data is deleted \
                 row by row and never compressed, and queries by time slow down as it grows; install TimescaleDB 2.13 or \
                 later, add it to shared_preload_libraries, and run `odograph migrate` again",
            ),
            (PositionsTable::Hypertable { .. }, Columnstore::Off) => Some(
                "the columnstore is off for positions: everything works, but old chunks stay as rows and take several \
                 times the room; `odograph migrate` switches it on",
            ),
            (PositionsTable::Hypertable { .. }, Columnstore::NotInThisBuild | Columnstore::NoChunks) => Some(
                "this build of TimescaleDB (Apache licence, such as Debian's package) has no columnstore: everything \
                 works, but old chunks stay as rows and take several times the room; the community build has it, and \
                 `odograph migrate` then switches it on",
            ),
        }
    }

    pub(crate) async fn of(client: &Client) -> Result<Self, StoreError> {
        let looking = || session::failed("looking for TimescaleDB");
        let Some(timescaledb) = client
            .query_opt("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'", &[])
            .await
            .map_err(looking())?
            .map(|row| row.get(0))
        else {
            return Ok(Self { positions: PositionsTable::Plain, columnstore: Columnstore::NoChunks });
        };
        let Some(row) = client.query_opt(HYPERTABLE, &[]).await.map_err(looking())? else {
            return Ok(Self { positions: PositionsTable::Plain, columnstore: Columnstore::NoChunks });
        };
        let columnstore = match (row.get(0), row.get::<_, Option<&str>>(1)) {
            (true, _) => Columnstore::On,
            (false, Some("timescale")) => Columnstore::Off,
            (false, _) => Columnstore::NotInThisBuild,
        };
        Ok(Self { positions: PositionsTable::Hypertable { timescaledb }, columnstore })
    }
}

/// Looks at a migrated database: what it has, for a word at the start.
///
/// # Errors
/// When the database cannot be asked, or its TimescaleDB is too old.
pub async fn features(url: &DatabaseUrl) -> Result<Features, StoreError> {
    match url {
        DatabaseUrl::Sqlite(_) => {
            Ok(Features { positions: PositionsTable::Embedded, columnstore: Columnstore::NoChunks })
        }
        DatabaseUrl::Postgres(url) => {
            let client = session::connect(url, "connecting to the database").await?;
            check_version(&client).await?;
            Features::of(&client).await
        }
    }
}

/// Refuses a TimescaleDB that the migrations cannot work with: the one that is there, or would be made.
pub(crate) async fn check_version(client: &Client) -> Result<(), StoreError> {
    const CHECKING: &str = "checking the version of TimescaleDB";
    let Some(row) = client.query_opt(VERSION, &[]).await.map_err(session::failed(CHECKING))? else { return Ok(()) };
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

/// What cannot be read as a version is let through: the migrations say what they lack.
fn supported(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
        _ => true,
    }
}

/// `by_range` is from 2.13.
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

    #[test]
    fn what_is_missing_is_said_with_its_cost() {
        let hypertable = PositionsTable::Hypertable { timescaledb: "2.19.3".to_owned() };
        let lacks = |positions: &PositionsTable, columnstore| {
            Features { positions: positions.clone(), columnstore }.lacks().unwrap_or_default()
        };
        assert!(lacks(&PositionsTable::Plain, Columnstore::NoChunks).contains("row by row"));
        assert!(lacks(&hypertable, Columnstore::NotInThisBuild).contains("several times the room"));
        assert!(lacks(&hypertable, Columnstore::Off).contains("odograph migrate"));
        assert_eq!(lacks(&hypertable, Columnstore::On), "");
        assert_eq!(lacks(&PositionsTable::Embedded, Columnstore::NoChunks), "");
    }
}
