//! A test's own database: in a PostgreSQL server or as a SQLite file. It returns rows as JSON, without the
//! service's code.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use odograph::store::{DatabaseUrl, MigrateOptions, migrate};
use serde_json::{Map, Value as Json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions as _, Row as _, SqliteConnection, TypeInfo as _, ValueRef as _};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// A database that is dropped with this value.
#[derive(Debug)]
pub enum TestDatabase {
    /// In the server of `DATABASE_URL`, or in a private one.
    Postgres {
        /// The URL of a database in the same server.
        server: String,
        /// The name of this database.
        name: String,
    },
    /// A file in its own directory.
    Sqlite {
        /// The directory, deleted with this value.
        directory: TempDir,
    },
}

/// The server of `DATABASE_URL`, which `scripts/test` provides.
#[must_use]
pub fn server_url() -> String {
    std::env::var("DATABASE_URL").expect(
        "DATABASE_URL must name a PostgreSQL with TimescaleDB: run scripts/test, or eval \"$(scripts/services env)\"",
    )
}

/// Connects to a PostgreSQL. The connection is driven by a task of the current runtime.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl TestDatabase {
    /// A migrated database in the server of `DATABASE_URL`.
    pub async fn postgres() -> Self {
        Self::postgres_in(&server_url()).await
    }

    /// A migrated database in another server.
    pub async fn postgres_in(server: &str) -> Self {
        Self::postgres_with(server, &MigrateOptions::default()).await
    }

    /// A database in another server, migrated with these options.
    pub async fn postgres_with(server: &str, options: &MigrateOptions) -> Self {
        let database = Self::postgres_empty(server).await;
        migrate(&DatabaseUrl::parse(&database.url()).unwrap(), options).await.unwrap();
        database
    }

    /// A database without tables.
    pub async fn postgres_empty(server: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        // Not template1: background workers of TimescaleDB connect to it, and a template must have no connections.
        let create = format!("CREATE DATABASE {name} TEMPLATE template0");
        connect(server).await.batch_execute(&create).await.unwrap();
        Self::Postgres { server: server.to_owned(), name }
    }

    /// A file. The service creates its tables.
    #[must_use]
    pub fn sqlite() -> Self {
        Self::Sqlite { directory: tempfile::tempdir().unwrap() }
    }

    /// The URL as in `DATABASE_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Postgres { server, name } => {
                let (base, _) = server.rsplit_once('/').unwrap();
                format!("{base}/{name}")
            }
            Self::Sqlite { .. } => format!("sqlite://{}", self.file().display()),
        }
    }

    /// Opens the SQLite file.
    pub async fn connect_sqlite(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.file()).connect().await.unwrap()
    }

    /// Connects to the PostgreSQL database.
    pub async fn connect_postgres(&self) -> Client {
        assert!(matches!(self, Self::Postgres { .. }), "SQLite has no server");
        connect(&self.url()).await
    }

    fn file(&self) -> PathBuf {
        match self {
            Self::Postgres { .. } => panic!("PostgreSQL has no file"),
            Self::Sqlite { directory } => directory.path().join("test.sqlite"),
        }
    }

    /// The rows of a query as JSON objects, in order. Values are as [`plain`] makes them.
    pub async fn rows(&self, query: &str) -> Vec<Map<String, Json>> {
        match self {
            Self::Postgres { .. } => {
                let query = format!("SELECT to_jsonb(rows)::text FROM ({query}) AS rows");
                let rows = self.connect_postgres().await.query(&query, &[]).await.unwrap();
                let object = |row: &tokio_postgres::Row| match serde_json::from_str(row.get(0)).unwrap() {
                    Json::Object(object) => object.into_iter().map(|(name, value)| (name, plain(value))).collect(),
                    other => panic!("{other}"),
                };
                rows.iter().map(object).collect()
            }
            Self::Sqlite { .. } => {
                let mut connection = self.connect_sqlite().await;
                let rows = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(sqlite_row).collect()
            }
        }
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Postgres { .. } => self.connect_postgres().await.batch_execute(sql).await.unwrap(),
            Self::Sqlite { .. } => {
                let mut connection = self.connect_sqlite().await;
                sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
            }
        }
    }

    /// The number of rows in `positions`.
    pub async fn positions(&self) -> u64 {
        self.rows("SELECT count(*) AS n FROM positions").await[0]["n"].as_u64().unwrap()
    }

    /// The rows of `positions`, with `ts_ms` and `received_us` as whole numbers in both databases.
    pub async fn all_positions(&self) -> Vec<Map<String, Json>> {
        self.table("positions").await
    }

    /// The rows of a table with the columns of `positions`, in the form of [`Self::all_positions`].
    pub async fn table(&self, table: &str) -> Vec<Map<String, Json>> {
        let (ts, received) = match self {
            Self::Postgres { .. } => {
                ("(extract(epoch FROM ts) * 1000)::bigint", "(extract(epoch FROM received_at) * 1000000)::bigint")
            }
            Self::Sqlite { .. } => ("ts", "received_at"),
        };
        self.rows(&format!(
            "SELECT *, {ts} AS ts_ms, {received} AS received_us FROM {table} ORDER BY imei, ts, fingerprint"
        ))
        .await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Self::Postgres { server, name } = self {
            // FORCE ends connections that the test left open. The thread is needed because `drop` cannot await and may
            // run inside the test's runtime, also while it panics.
            let (server, sql) = (server.clone(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { connect(&server).await.batch_execute(&sql).await })
            });
            // An error only leaves the database behind, and a private server may be gone together with it.
            let _ = thread.join();
        }
    }
}

/// One form for values that databases and examples write differently: booleans as 0 and 1, whole floats as integers.
#[must_use]
pub fn plain(value: Json) -> Json {
    match value {
        Json::Bool(bool) => Json::from(u8::from(bool)),
        Json::Number(number) if number.is_f64() => match number.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "whole degrees")]
            Some(whole) if whole.fract() == 0.0 => Json::from(whole as i64),
            _ => number.into(),
        },
        other => other,
    }
}

fn sqlite_row(row: &sqlx::sqlite::SqliteRow) -> Map<String, Json> {
    let value = |index: usize, name: &str| -> Json {
        let raw = row.try_get_raw(index).unwrap();
        if raw.is_null() {
            return Json::Null;
        }
        match raw.type_info().name() {
            "INTEGER" | "BOOLEAN" => Json::from(row.get::<i64, _>(index)),
            "REAL" => Json::from(row.get::<f64, _>(index)),
            "TEXT" if name == "io" => serde_json::from_str(&row.get::<String, _>(index)).unwrap(),
            "TEXT" => Json::from(row.get::<String, _>(index)),
            other => panic!("column {name} is {other}"),
        }
    };
    row.columns()
        .iter()
        .map(|column| (column.name().to_owned(), plain(value(column.ordinal(), column.name()))))
        .collect()
}
