//! A database of a test's own, in the real server or as a file, and rows read back as JSON without the service's code.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use odograph::store::{DatabaseUrl, MigrateOptions, migrate};
use serde_json::{Map, Value as Json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{
    AssertSqlSafe, Column as _, Connection as _, PgConnection, Row as _, SqliteConnection, TypeInfo as _, ValueRef as _,
};

/// Dropped with the test.
pub enum Database {
    /// In the server of `DATABASE_URL`, or in a private one.
    Postgres { server: String, name: String },
    /// A file in a directory of its own.
    Sqlite { directory: tempfile::TempDir },
}

/// The real server, which `scripts/test` provides.
pub fn server_url() -> String {
    std::env::var("DATABASE_URL")
        .expect("DATABASE_URL is not set: run scripts/test, or eval \"$(scripts/services env)\" before cargo test")
}

impl Database {
    /// A migrated database in the server of `DATABASE_URL`.
    pub async fn postgres() -> Self {
        Self::postgres_in(&server_url()).await
    }

    /// A migrated database in another server.
    pub async fn postgres_in(server: &str) -> Self {
        let database = Self::postgres_empty(server).await;
        migrate(&DatabaseUrl::parse(&database.url()).unwrap(), &MigrateOptions::default()).await.unwrap();
        database
    }

    /// A database without tables.
    pub async fn postgres_empty(server: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(server).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
        Self::Postgres { server: server.to_owned(), name }
    }

    /// A file; the service makes its tables by itself.
    pub fn sqlite() -> Self {
        Self::Sqlite { directory: tempfile::tempdir().unwrap() }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Postgres { server, name } => {
                let (base, _) = server.rsplit_once('/').unwrap();
                format!("{base}/{name}")
            }
            Self::Sqlite { .. } => format!("sqlite://{}", self.file().display()),
        }
    }

    fn file(&self) -> PathBuf {
        match self {
            Self::Postgres { .. } => panic!("no file"),
            Self::Sqlite { directory } => directory.path().join("test.sqlite"),
        }
    }

    /// Rows of a query as JSON objects, in order. Values are as [`plain`] makes them.
    pub async fn rows(&self, query: &str) -> Vec<Map<String, Json>> {
        match self {
            Self::Postgres { .. } => {
                let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                let query = format!("SELECT to_jsonb(rows)::text FROM ({query}) AS rows");
                let rows =
                    sqlx::query_scalar::<_, String>(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
                let object = |text: String| match serde_json::from_str(&text).unwrap() {
                    Json::Object(object) => object.into_iter().map(|(name, value)| (name, plain(value))).collect(),
                    other => panic!("{other}"),
                };
                rows.into_iter().map(object).collect()
            }
            Self::Sqlite { .. } => {
                let options = SqliteConnectOptions::new().filename(self.file());
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                let rows = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(sqlite_row).collect()
            }
        }
    }

    /// Disturbs it.
    pub async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres { .. } => {
                sqlx::raw_sql(sql).execute(&mut PgConnection::connect(&self.url()).await.unwrap()).await.unwrap();
            }
            Self::Sqlite { .. } => {
                let options = SqliteConnectOptions::new().filename(self.file());
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
            }
        }
    }

    /// Number of rows in `positions`.
    pub async fn positions(&self) -> u64 {
        self.rows("SELECT count(*) AS n FROM positions").await[0]["n"].as_u64().unwrap()
    }

    /// Rows of `positions`, with `ts_ms` and `received_us` as whole numbers in both databases.
    pub async fn all_positions(&self) -> Vec<Map<String, Json>> {
        self.table("positions").await
    }

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

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Postgres { server, name } = self {
            // A connection of the test may still be open; FORCE ends it. A thread of its own, because drop cannot wait
            // for futures and the test's runtime is busy with it.
            let (server, sql) = (server.clone(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
            let dropped = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let mut admin = PgConnection::connect(&server).await?;
                    sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await
                })
            });
            // A private server may be gone already, and the database with it.
            let _ = dropped.join();
        }
    }
}

/// One form for what databases and examples write differently: booleans as 0 and 1, whole floats as integers.
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
    let value = |at: usize, name: &str| -> Json {
        let raw = row.try_get_raw(at).unwrap();
        if raw.is_null() {
            return Json::Null;
        }
        match raw.type_info().name() {
            "INTEGER" | "BOOLEAN" => Json::from(row.get::<i64, _>(at)),
            "REAL" => Json::from(row.get::<f64, _>(at)),
            "TEXT" if name == "io" => serde_json::from_str(&row.get::<String, _>(at)).unwrap(),
            "TEXT" => Json::from(row.get::<String, _>(at)),
            other => panic!("column {name} is {other}"),
        }
    };
    row.columns()
        .iter()
        .map(|column| (column.name().to_owned(), plain(value(column.ordinal(), column.name()))))
        .collect()
}
