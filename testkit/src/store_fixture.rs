//! A database for each test, so that tests run side by side.

use std::sync::atomic::{AtomicU32, Ordering};

use odograph::store::{
    DatabaseUrl, Lane, Ledger, MigrateOptions, PostgresLedger, PostgresStore, SqliteLedger, SqliteStore, Store, migrate,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Row as _};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::rows::{Cell, columns};
use super::steps::{OneLane, sqlite, timescale};

/// What the shared tests need of a database and its store.
pub(crate) trait TestDatabase {
    type Store: Store;
    type Ledger: Ledger;

    /// A database of its own with the schema in place.
    async fn new() -> Self;
    fn store(&mut self) -> &mut OneLane<Self::Store>;
    /// Every row of a table, sorted by key.
    async fn rows(&self, table: &str) -> Vec<Vec<Cell>>;
    async fn count(&self, table: &str) -> i64;
    /// Columns as text, in the order of the first ones.
    async fn texts(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>>;
    /// Disturbs it.
    async fn execute(&self, sql: &str);
    /// The column `bytes` as hexadecimal digits.
    fn hex_of_bytes(&self) -> &'static str;
    /// Makes `positions` refuse what is faster than 250 km/h.
    async fn refuse_speed(&self);
    /// A store on the same database, as another process has it.
    async fn another(&self, lane: Lane) -> OneLane<Self::Store>;
    /// The ledger of flags in the same database, over a connection of its own.
    fn ledger(&self) -> Self::Ledger;
    fn url(&self) -> DatabaseUrl;
}

pub(crate) struct PostgresDatabase {
    pub(crate) name: String,
    pub(crate) url: DatabaseUrl,
    pub(crate) store: OneLane<PostgresStore>,
    /// For looking at what was stored, and for disturbing it.
    pub(crate) client: Client,
}

impl PostgresDatabase {
    /// A database of its own without a schema.
    pub(crate) async fn empty() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("stores_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        // Not template1: TimescaleDB's background workers visit it.
        let admin = connect(&server_url()).await;
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
        Self::at(&url_of_database(&name), name).await
    }

    async fn at(url: &str, name: String) -> Self {
        let client = connect(url).await;
        let url = DatabaseUrl::parse(url).unwrap();
        let store = timescale(&url);
        Self { name, url, store, client }
    }

    /// The URL of this database behind a proxy, with parameters.
    pub(crate) fn url_through(&self, port: u16, parameters: &str) -> DatabaseUrl {
        let url = url_of_database(&self.name);
        let (front, behind) = url.split_once('@').unwrap();
        let (_, database) = behind.split_once('/').unwrap();
        DatabaseUrl::parse(&format!("{front}@127.0.0.1:{port}/{database}?{parameters}")).unwrap()
    }

    /// The URL of this database for another user.
    pub(crate) fn url_as(&self, user: &str) -> DatabaseUrl {
        let url = url_of_database(&self.name);
        let (_, host) = url.split_once("://").unwrap();
        let host = host.split_once('@').map_or(host, |(_, host)| host);
        DatabaseUrl::parse(&format!("postgres://{user}@{host}")).unwrap()
    }

    /// A connection that keeps others from writing positions until it says COMMIT. Not `client`: inside a transaction
    /// the view of the server's activity stands still.
    pub(crate) async fn blocker(&self) -> Client {
        let client = connect(&url_of_database(&self.name)).await;
        client.batch_execute("BEGIN; LOCK TABLE positions IN EXCLUSIVE MODE").await.unwrap();
        client
    }

    /// Ends the store's connections on the server; says how many there were.
    pub(crate) async fn terminate(&self) -> u64 {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'odograph'";
        u64::try_from(self.client.query(end, &[]).await.unwrap().len()).unwrap()
    }

    /// Waits until a connection of the store waits for a lock.
    pub(crate) async fn until_blocked(&self) {
        let blocked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
                       AND application_name = 'odograph' AND wait_event_type = 'Lock')";
        for _ in 0..6_000 {
            if self.client.query_one(blocked, &[]).await.unwrap().get::<_, bool>(0) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the commit was not blocked within a minute");
    }
}

impl TestDatabase for PostgresDatabase {
    type Store = PostgresStore;
    type Ledger = PostgresLedger;

    async fn new() -> Self {
        let database = Self::empty().await;
        migrate(&database.url, &MigrateOptions::default()).await.unwrap();
        database
    }

    fn store(&mut self) -> &mut OneLane<PostgresStore> {
        &mut self.store
    }

    async fn rows(&self, table: &str) -> Vec<Vec<Cell>> {
        let columns = columns();
        // As text: exact for every type, and the client needs to know none of them.
        let list: Vec<_> = columns
            .iter()
            .map(|(name, ..)| match *name {
                "ts" => "(extract(epoch FROM ts) * 1000)::bigint::text".to_owned(),
                "received_at" => "(extract(epoch FROM received_at) * 1000000)::bigint::text".to_owned(),
                name => format!("{name}::text"),
            })
            .collect();
        let query = format!("SELECT {} FROM {table} t ORDER BY t.imei, t.ts, t.fingerprint", list.join(", "));
        let cell = |text: Option<String>, column_type: &str| match (text, column_type) {
            (None, _) => Cell::Null,
            (Some(text), "boolean") => Cell::Boolean(text == "true"),
            (Some(text), "double precision" | "real") => Cell::Real(text.parse().unwrap()),
            (Some(text), "jsonb") => Cell::Json(serde_json::from_str(&text).unwrap()),
            (Some(text), _) => Cell::Integer(text.parse().unwrap()),
        };
        let rows = self.client.query(&query, &[]).await.unwrap();
        let cells = |row: &tokio_postgres::Row| {
            columns.iter().enumerate().map(|(index, column)| cell(row.get(index), column.1)).collect()
        };
        rows.iter().map(cells).collect()
    }

    async fn texts(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let list: Vec<_> = columns.iter().map(|column| format!("coalesce({column}::text, '')")).collect();
        let query = format!("SELECT {} FROM {table} ORDER BY {}", list.join(", "), columns.join(", "));
        let rows = self.client.query(&query, &[]).await.unwrap();
        rows.iter().map(|row| (0..columns.len()).map(|column| row.get(column)).collect()).collect()
    }

    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    fn hex_of_bytes(&self) -> &'static str {
        "encode(bytes, 'hex')"
    }

    async fn refuse_speed(&self) {
        self.execute("ALTER TABLE positions ADD CONSTRAINT no_rocket CHECK (speed_kmh < 250)").await;
    }

    async fn another(&self, lane: Lane) -> OneLane<PostgresStore> {
        OneLane::new(PostgresStore::new(&self.url, lane).unwrap())
    }

    fn url(&self) -> DatabaseUrl {
        self.url.clone()
    }

    fn ledger(&self) -> PostgresLedger {
        PostgresLedger::new(&self.url).unwrap()
    }

    async fn count(&self, table: &str) -> i64 {
        self.client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let drop_database = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // Also when the test panics, so outside its runtime. What fails here is only left over.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { connect(&server_url()).await.batch_execute(&drop_database).await })
        });
        let _ = dropped.join();
    }
}

/// A server that a test may stop, start and set up as it likes.
pub(crate) struct PrivateServer {
    name: String,
    pub(crate) url: String,
}

impl PrivateServer {
    pub(crate) fn new(purpose: &str) -> Self {
        let name = format!("{purpose}-{}", std::process::id());
        let url = services(&["pg-new", &name]);
        Self { name, url }
    }

    pub(crate) fn stop(&self, how: &str) {
        services(&["pg-stop", &self.name, how]);
    }

    pub(crate) fn start(&self) {
        services(&["pg-start", &self.name]);
    }

    pub(crate) async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// The URL of its database for another user, with parameters.
    pub(crate) fn url_with(&self, user: &str, parameters: &str) -> DatabaseUrl {
        let (_, host) = self.url.split_once('@').unwrap();
        DatabaseUrl::parse(&format!("postgres://{user}@{host}?{parameters}")).unwrap()
    }

    /// Writes a file of the server's data directory through the server itself, which sees it at another place.
    pub(crate) async fn write(&self, file: &str, text: &str) {
        let lines: Vec<_> = text.lines().map(|line| format!("('{line}')")).collect();
        let values = if lines.is_empty() { "('')".to_owned() } else { lines.join(", ") };
        // Through a program: a key that others may read would not be taken, and COPY's own files are such.
        let copy = format!("COPY (VALUES {values}) TO PROGRAM 'umask 077 && cat > /srv/{file}'");
        self.connect().await.batch_execute(&copy).await.unwrap();
    }

    /// Lets in whom the lines say, and this test's own connections.
    pub(crate) async fn admit(&self, lines: &str) {
        self.write("pg_hba.conf", &format!("{lines}\nhost all odograph 127.0.0.1/32 trust")).await;
        self.reload().await;
    }

    /// Makes the server read its files again, and waits until a new connection sees them.
    pub(crate) async fn reload(&self) {
        let client = self.connect().await;
        let before: String = client.query_one("SELECT pg_conf_load_time()::text", &[]).await.unwrap().get(0);
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        for _ in 0..1_000 {
            let now = self.connect().await.query_one("SELECT pg_conf_load_time()::text", &[]).await.unwrap();
            if now.get::<_, String>(0) != before {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the server did not read its files again");
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        services(&["pg-rm", &self.name]);
    }
}

/// Runs `scripts/services`, or what `ODOGRAPH_SERVICES` names in its place, and gives its output.
fn services(arguments: &[&str]) -> String {
    let script = std::env::var("ODOGRAPH_SERVICES")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services").to_owned());
    let output = std::process::Command::new(&script).args(arguments).output().expect("scripts/services runs");
    assert!(output.status.success(), "{script} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) struct SqliteDatabase {
    pub(crate) directory: TempDir,
    pub(crate) url: DatabaseUrl,
    pub(crate) store: OneLane<SqliteStore>,
}

impl SqliteDatabase {
    pub(crate) async fn connect(&self) -> sqlx::SqliteConnection {
        let path = self.directory.path().join("positions.db");
        sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap()
    }
}

impl TestDatabase for SqliteDatabase {
    type Store = SqliteStore;
    type Ledger = SqliteLedger;

    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::sqlite(directory.path().join("positions.db"));
        let store = sqlite(&url).await;
        Self { directory, url, store }
    }

    fn store(&mut self) -> &mut OneLane<SqliteStore> {
        &mut self.store
    }

    async fn rows(&self, table: &str) -> Vec<Vec<Cell>> {
        let columns = columns();
        let names: Vec<_> = columns.iter().map(|column| column.0).collect();
        let query = format!("SELECT {} FROM {table} ORDER BY imei, ts, fingerprint", names.join(", "));
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut self.connect().await).await.unwrap();
        let cell = |row: &sqlx::sqlite::SqliteRow, index: usize, column_type: &str| match column_type {
            "boolean" => row.get::<Option<bool>, _>(index).map_or(Cell::Null, Cell::Boolean),
            "double precision" | "real" => row.get::<Option<f64>, _>(index).map_or(Cell::Null, Cell::Real),
            "jsonb" => row
                .get::<Option<String>, _>(index)
                .map_or(Cell::Null, |text| Cell::Json(serde_json::from_str(&text).unwrap())),
            _ => row.get::<Option<i64>, _>(index).map_or(Cell::Null, Cell::Integer),
        };
        let cells = |row: &sqlx::sqlite::SqliteRow| {
            columns.iter().enumerate().map(|(index, column)| cell(row, index, column.1)).collect()
        };
        rows.iter().map(cells).collect()
    }

    async fn texts(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let list: Vec<_> = columns.iter().map(|column| format!("coalesce(CAST({column} AS TEXT), '')")).collect();
        let query = format!("SELECT {} FROM {table} ORDER BY {}", list.join(", "), columns.join(", "));
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut self.connect().await).await.unwrap();
        rows.iter().map(|row| (0..columns.len()).map(|column| row.get(column)).collect()).collect()
    }

    async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connect().await).await.unwrap();
    }

    fn hex_of_bytes(&self) -> &'static str {
        "hex(bytes)"
    }

    async fn refuse_speed(&self) {
        self.execute(
            "CREATE TRIGGER no_rocket BEFORE INSERT ON positions WHEN NEW.speed_kmh >= 250 \
             BEGIN SELECT RAISE(ABORT, 'no_rocket'); END",
        )
        .await;
    }

    async fn another(&self, lane: Lane) -> OneLane<SqliteStore> {
        OneLane::new(SqliteStore::open(&self.url, lane).await.unwrap())
    }

    fn url(&self) -> DatabaseUrl {
        self.url.clone()
    }

    fn ledger(&self) -> SqliteLedger {
        SqliteLedger::new(&self.url).unwrap()
    }

    async fn count(&self, table: &str) -> i64 {
        let query = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(query).fetch_one(&mut self.connect().await).await.unwrap()
    }
}

/// The server to test with.
pub(crate) fn server_url() -> String {
    std::env::var("DATABASE_URL").expect(
        "DATABASE_URL has to name a PostgreSQL with TimescaleDB: run scripts/test, or eval \"$(scripts/services env)\"",
    )
}

fn url_of_database(name: &str) -> String {
    let url = server_url();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
