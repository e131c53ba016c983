//! A database with a store and a flag ledger on it. Tests that must hold for both stores are written over
//! [`StoreFixture`].

use std::future::Future;

use odograph::store::file_of;
use odograph::store::server_of;
use odograph::store::{
    DatabaseUrl, Lane, Ledger, MigrateOptions, PostgresLedger, PostgresStore, SqliteLedger, SqliteStore, Store, migrate,
};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use tokio_postgres::Client;

use crate::database::{TestDatabase, server_url};
use crate::one_lane::{OneLane, open_postgres, open_sqlite};
use crate::rows::{Cell, columns};
use crate::wait::until;

/// The parts of a database that the tests of both stores need.
pub trait StoreFixture: Sized {
    /// The store of this kind of database.
    type Store: Store;
    /// The ledger of flags of this kind of database.
    type Ledger: Ledger + Send;

    /// A new database with the schema.
    fn new() -> impl Future<Output = Self>;
    /// The store that the test commits to.
    fn store(&mut self) -> &mut OneLane<Self::Store>;
    /// Every row of a table with the columns of `positions`, in the order of the key.
    fn rows(&self, table: &str) -> impl Future<Output = Vec<Vec<Cell>>>;
    /// The number of rows of a table.
    fn count(&self, table: &str) -> impl Future<Output = i64>;
    /// Columns of a table as text, in the order of their values.
    fn texts(&self, table: &str, columns: &[&str]) -> impl Future<Output = Vec<Vec<String>>>;
    /// Runs statements.
    fn execute(&self, sql: &str) -> impl Future<Output = ()>;
    /// The SQL expression for the column `bytes` as hexadecimal digits.
    fn hex_of_bytes(&self) -> &'static str;
    /// Makes `positions` refuse a speed of 250 km/h and more.
    fn refuse_speed(&self) -> impl Future<Output = ()>;
    /// A second store on the same database, as another process would open it.
    fn another(&self, lane: Lane) -> impl Future<Output = OneLane<Self::Store>>;
    /// The ledger of flags, with its own connection.
    fn ledger(&self) -> Self::Ledger;
    /// The URL of the database.
    fn url(&self) -> DatabaseUrl;
}

/// A database in the PostgreSQL server of `DATABASE_URL`.
pub struct PostgresFixture {
    database: TestDatabase,
    /// The URL of the database.
    pub url: DatabaseUrl,
    /// The store under test.
    pub store: OneLane<PostgresStore>,
    /// A connection that reads stored rows, and disturbs the store.
    pub client: Client,
}

impl PostgresFixture {
    /// A database without a schema.
    pub async fn empty() -> Self {
        let database = TestDatabase::postgres_empty(&server_url()).await;
        let client = database.connect_postgres().await;
        let url = DatabaseUrl::parse(&database.url()).unwrap();
        let store = open_postgres(&url);
        Self { database, url, store, client }
    }

    /// The name of the database.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.database {
            TestDatabase::Postgres { name, .. } => name,
            TestDatabase::Sqlite { .. } => unreachable!("made by `empty`"),
        }
    }

    /// Another connection to the database.
    pub async fn connect(&self) -> Client {
        self.database.connect_postgres().await
    }

    /// The URL of the database behind a proxy, with parameters.
    #[must_use]
    pub fn url_through(&self, port: u16, parameters: &str) -> DatabaseUrl {
        let url = self.database.url();
        let (front, rest) = url.split_once('@').unwrap();
        let (_, database) = rest.split_once('/').unwrap();
        DatabaseUrl::parse(&format!("{front}@127.0.0.1:{port}/{database}?{parameters}")).unwrap()
    }

    /// The URL of the database for another user.
    #[must_use]
    pub fn url_as(&self, user: &str) -> DatabaseUrl {
        let url = self.database.url();
        let (_, host) = url.split_once("://").unwrap();
        let host = host.split_once('@').map_or(host, |(_, host)| host);
        DatabaseUrl::parse(&format!("postgres://{user}@{host}")).unwrap()
    }

    /// A connection that keeps others from writing positions until it sends COMMIT. It is separate, because
    /// inside a transaction the view of the server's activity does not change.
    pub async fn blocker(&self) -> Client {
        let client = self.connect().await;
        client.batch_execute("BEGIN; LOCK TABLE positions IN EXCLUSIVE MODE").await.unwrap();
        client
    }

    /// Ends the store's connections on the server. Returns how many there were.
    pub async fn terminate(&self) -> u64 {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'odograph'";
        u64::try_from(self.client.query(end, &[]).await.unwrap().len()).unwrap()
    }

    /// Waits until a connection of the store waits for a lock.
    pub async fn until_blocked(&self) {
        let blocked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
                       AND application_name = 'odograph' AND wait_event_type = 'Lock')";
        until("the commit to be blocked", async || self.client.query_one(blocked, &[]).await.unwrap().get(0)).await;
    }
}

impl StoreFixture for PostgresFixture {
    type Store = PostgresStore;
    type Ledger = PostgresLedger;

    async fn new() -> Self {
        let fixture = Self::empty().await;
        migrate(&fixture.url, &MigrateOptions::default()).await.unwrap();
        fixture
    }

    fn store(&mut self) -> &mut OneLane<PostgresStore> {
        &mut self.store
    }

    async fn rows(&self, table: &str) -> Vec<Vec<Cell>> {
        let columns = columns();
        // As text: exact for every type, and the client needs no special type for any of them.
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

    async fn count(&self, table: &str) -> i64 {
        self.client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
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
        OneLane::new(PostgresStore::new(server_of(&self.url).unwrap(), lane).unwrap())
    }

    fn ledger(&self) -> PostgresLedger {
        PostgresLedger::new(server_of(&self.url).unwrap()).unwrap()
    }

    fn url(&self) -> DatabaseUrl {
        self.url.clone()
    }
}

/// A SQLite file.
pub struct SqliteFixture {
    /// The file.
    pub database: TestDatabase,
    /// The URL of the file.
    pub url: DatabaseUrl,
    /// The store under test.
    pub store: OneLane<SqliteStore>,
}

impl SqliteFixture {
    /// Another connection to the file.
    pub async fn connect(&self) -> SqliteConnection {
        self.database.connect_sqlite().await
    }
}

impl StoreFixture for SqliteFixture {
    type Store = SqliteStore;
    type Ledger = SqliteLedger;

    async fn new() -> Self {
        let database = TestDatabase::sqlite();
        let url = DatabaseUrl::parse(&database.url()).unwrap();
        let store = open_sqlite(&url).await;
        Self { database, url, store }
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

    async fn count(&self, table: &str) -> i64 {
        let query = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(query).fetch_one(&mut self.connect().await).await.unwrap()
    }

    async fn texts(&self, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let list: Vec<_> = columns.iter().map(|column| format!("coalesce(CAST({column} AS TEXT), '')")).collect();
        let query = format!("SELECT {} FROM {table} ORDER BY {}", list.join(", "), columns.join(", "));
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut self.connect().await).await.unwrap();
        rows.iter().map(|row| (0..columns.len()).map(|column| row.get(column)).collect()).collect()
    }

    async fn execute(&self, sql: &str) {
        self.database.execute(sql).await;
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
        OneLane::new(SqliteStore::open(file_of(&self.url).unwrap(), lane).await.unwrap())
    }

    fn ledger(&self) -> SqliteLedger {
        SqliteLedger::new(file_of(&self.url).unwrap())
    }

    fn url(&self) -> DatabaseUrl {
        self.url.clone()
    }
}
