//! The benchmark's own databases, and raw binary COPY: the same rows, one connection, the same table.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use odograph::store::MigrateOptions;
use odograph_testkit::TestDatabase;
use odograph_testkit::database::connect;
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use super::cpu::DatabaseServer;

/// A new database with all migrations, dropped with this value.
pub struct Database {
    _database: TestDatabase,
    pub url: String,
}

impl Database {
    pub fn new(server: &str, options: &MigrateOptions) -> Self {
        let database = runtime().block_on(TestDatabase::postgres_with(server, options));
        Self { url: database.url(), _database: database }
    }

    /// Makes the server write its dirty pages, so that no measurement pays for the one before.
    pub fn settle(&self) {
        self.run("CHECKPOINT");
    }

    pub fn run(&self, sql: &str) {
        runtime().block_on(async { connect(&self.url).await.batch_execute(sql).await.unwrap() });
    }

    pub fn count(&self) -> u64 {
        let count: i64 = self.one("SELECT count(*) FROM positions");
        u64::try_from(count).unwrap()
    }

    /// Counts and drops the chunks older than the latest position of every tracker, each in one transaction. Returns
    /// the number of their rows. Trackers send in order, so only a resent packet can still arrive for them: for that, one
    /// chunk is kept.
    pub fn count_and_drop_chunks(&self) -> u64 {
        runtime().block_on(async {
            let mut client = connect(&self.url).await;
            let old = "SELECT format('%I.%I', chunk_schema, chunk_name), range_end::text
                 FROM timescaledb_information.chunks WHERE hypertable_name = 'positions'
                 AND range_end + (range_end - range_start) < (SELECT min(ts) FROM latest_positions) ORDER BY range_end";
            let mut rows = 0;
            for chunk in client.query(old, &[]).await.unwrap() {
                let (name, end): (String, String) = (chunk.get(0), chunk.get(1));
                let transaction = client.transaction().await.unwrap();
                transaction.batch_execute(&format!("LOCK TABLE {name} IN SHARE MODE")).await.unwrap();
                let count = transaction.query_one(&format!("SELECT count(*) FROM {name}"), &[]).await.unwrap();
                let drop = format!("SELECT drop_chunks('positions', older_than => '{end}'::timestamptz)");
                assert_eq!(transaction.query(&drop, &[]).await.unwrap().len(), 1, "one chunk at a time");
                transaction.commit().await.unwrap();
                rows += u64::try_from(count.get::<_, i64>(0)).unwrap();
            }
            rows
        })
    }

    pub fn server(&self) -> DatabaseServer {
        let pid: i32 = self.one("SELECT pg_backend_pid()");
        DatabaseServer::of_backend(u32::try_from(pid).unwrap())
    }

    fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        runtime().block_on(async { connect(&self.url).await.query_one(sql, &[]).await.unwrap().get(0) })
    }

    /// Takes the rows out of `positions`.
    pub fn rows(&self, order: Order) -> Rows {
        runtime().block_on(async {
            let client = connect(&self.url).await;
            let columns = columns_in_use(&client).await;
            let from = match order {
                Order::Key => "positions ORDER BY imei, ts, fingerprint".to_owned(),
                Order::Arrival => format!(
                    "(SELECT *, (row_number() OVER (ORDER BY received_at, imei, ts, fingerprint) - 1) / {BATCH} AS batch
                      FROM positions) p ORDER BY batch, imei, ts, fingerprint"
                ),
            };
            let out = format!("COPY (SELECT {columns} FROM {from}) TO STDOUT (FORMAT binary)");
            let mut parts = pin!(client.copy_out(&out).await.unwrap());
            let (mut bytes, mut ends) = (BytesMut::new(), Vec::new());
            // A message is a row; the first one has the header before it, and the last is the trailer.
            while let Some(part) = parts.next().await.transpose().unwrap() {
                let row = if ends.is_empty() { part.strip_prefix(HEADER).unwrap() } else { &part };
                if row != TRAILER {
                    bytes.extend_from_slice(row);
                    ends.push(bytes.len());
                }
            }
            Rows { columns, bytes: bytes.freeze(), ends }
        })
    }

    /// Seconds for COPY of all rows into the table, one transaction a batch.
    pub fn copy(&self, rows: &Rows, table: &str, batch: usize) -> f64 {
        runtime().block_on(async {
            let client = connect(&self.url).await;
            let begun = Instant::now();
            for first in (0..rows.len()).step_by(batch) {
                rows.copy(&client, table, first, batch).await;
            }
            begun.elapsed().as_secs_f64()
        })
    }

    /// COPY at this rate of rows a second for some time, evenly spread. A table takes a row once, so there are several.
    pub fn copy_paced(&self, rows: &Rows, rate: f64, batch: usize, time: Duration) {
        let wanted = rate * time.as_secs_f64();
        let tables = (wanted / rows.len() as f64).ceil() as usize;
        for table in 0..tables {
            self.run(&format!(
                "CREATE TABLE paced_{table} (LIKE positions INCLUDING ALL);
                 SELECT create_hypertable('paced_{table}', by_range('ts', INTERVAL '1 day'), create_default_indexes => false)"
            ));
        }
        self.settle();
        runtime().block_on(async {
            let client = connect(&self.url).await;
            let (begun, mut done) = (tokio::time::Instant::now(), 0.0);
            for table in 0..tables {
                for first in (0..rows.len()).step_by(batch) {
                    if begun.elapsed() > time {
                        return;
                    }
                    tokio::time::sleep_until(begun + Duration::from_secs_f64(done / rate)).await;
                    rows.copy(&client, &format!("paced_{table}"), first, batch).await;
                    done += batch as f64;
                }
            }
        });
    }
}

/// How rows are sorted before they are cut into batches.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// All rows by the key. No service can do that: each batch then has only a few trackers.
    Key,
    /// In the order of arrival, and by the key within each batch.
    Arrival,
}

/// Rows in COPY's binary format.
#[derive(Clone)]
pub struct Rows {
    columns: String,
    bytes: Bytes,
    ends: Vec<usize>,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    async fn copy(&self, client: &Client, table: &str, first: usize, count: usize) {
        let last = (first + count).min(self.len());
        let begin = first.checked_sub(1).map_or(0, |before| self.ends[before]);
        let mut rest = self.bytes.slice(begin..self.ends[last - 1]);
        client.batch_execute("BEGIN").await.unwrap();
        let copy = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", self.columns);
        let mut sink = pin!(client.copy_in::<_, Bytes>(&copy).await.unwrap());
        sink.feed(Bytes::from_static(HEADER)).await.unwrap();
        while !rest.is_empty() {
            sink.send(rest.split_to(rest.len().min(64 * 1024))).await.unwrap();
        }
        sink.send(Bytes::from_static(TRAILER)).await.unwrap();
        assert_eq!(sink.finish().await.unwrap(), (last - first) as u64);
        client.batch_execute("COMMIT").await.unwrap();
    }
}

/// The columns in which any row has a value. Columns that the list leaves out cost nothing.
async fn columns_in_use(client: &Client) -> String {
    let all = "SELECT quote_ident(attname) FROM pg_attribute
               WHERE attrelid = 'positions'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let all: Vec<String> = client.query(all, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let counts: Vec<String> = all.iter().map(|column| format!("count({column}) > 0")).collect();
    let used = format!("SELECT {} FROM positions", counts.join(", "));
    let used = client.query_one(&used, &[]).await.unwrap();
    let used: Vec<&str> = all.iter().enumerate().filter(|(at, _)| used.get(*at)).map(|(_, column)| &**column).collect();
    used.join(", ")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Rows of one transaction.
pub const BATCH: usize = 50_000;
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = &[0xFF; 2];
