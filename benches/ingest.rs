//! Socket to committed rows, beside raw binary COPY of the same rows into the same kind of table by one connection.
//!
//! The service is the real binary; load, service and database share this machine. Prints one JSON line. Variables:
//! `DATABASE_URL` (from `scripts/services env`), `BENCH_DEVICES` (2000), `BENCH_PACKETS` (30), `BENCH_RECORDS` (10),
//! `BENCH_RUNS` (3).

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use odograph::fleet::{self, Plan, Progress, Told};
use odograph::store::{DatabaseUrl, MigrateOptions, migrate};
use serde_json::Value as Json;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL is not set: eval \"$(scripts/services env)\" first");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&url));
}

async fn run(url: &str) {
    let number = |name: &str, default: u32| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (devices, packets) = (number("BENCH_DEVICES", 2_000), number("BENCH_PACKETS", 30));
    let records = u8::try_from(number("BENCH_RECORDS", 10)).unwrap();
    let rows = u64::from(devices) * u64::from(packets) * u64::from(records);
    let (mut ingest, mut copy, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let admin = connect(url).await;
    for _ in 0..number("BENCH_RUNS", 3) {
        let name = format!("bench_ingest_{}", std::process::id());
        let database = format!("{}/{name}", url.rsplit_once('/').unwrap().0);
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        migrate(&DatabaseUrl::parse(&database).unwrap(), &MigrateOptions::default()).await.unwrap();

        let (mut service, target) = serve(&database);
        // Noon, and every clock right: all rows in one chunk, as for the raw COPY.
        let plan = Plan::new(target.parse().unwrap(), 1_780_056_000_000);
        let plan = Plan { devices, records, packets: Some(packets), ..plan };
        let begun = Instant::now();
        let told = fleet::run(plan, Arc::new(Progress::default()), CancellationToken::new()).await;
        let ingested = per_second(rows, begun);
        assert_eq!(told.iter().map(Told::acknowledged).sum::<u64>(), rows);
        service.kill().unwrap();
        service.wait().unwrap();

        let copied = raw_copy(&database, rows).await;
        admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
        ingest.push(ingested);
        copy.push(copied);
        ratios.push(ingested / copied);
    }
    println!(
        "{}",
        serde_json::json!({
            "rows": rows, "devices": devices, "records_per_packet": records, "runs": ratios.len(),
            "copy_rows_per_s": median(&mut copy).round(), "ingest_rows_per_s": median(&mut ingest).round(),
            "ratio": (median(&mut ratios) * 1000.0).round() / 1000.0,
        })
    );
}

/// Starts the service; gives the address of its tracker listener.
fn serve(database: &str) -> (Child, String) {
    use std::io::{BufRead as _, BufReader};
    let mut child = Command::new(env!("CARGO_BIN_EXE_odograph"))
        .arg("serve")
        .env("DATABASE_URL", database)
        .env("ODOGRAPH_LISTEN", "127.0.0.1:0")
        .env("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0")
        .env("ODOGRAPH_LOG_FORMAT", "json")
        .env("ODOGRAPH_TIME_WINDOW_PAST", "20000d")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let target = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| serde_json::from_str::<Json>(&line).ok()?["trackers"].as_str().map(str::to_owned))
        .expect("the service starts");
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
    (child, target)
}

/// Takes the rows out in their order and copies them into a new hypertable of the same columns, batch by batch.
async fn raw_copy(database: &str, rows: u64) -> f64 {
    let client = connect(database).await;
    let present = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'positions'::regclass AND attnum > 0
        AND attname IN (SELECT jsonb_object_keys(jsonb_strip_nulls(to_jsonb(p))) FROM positions p
                        WHERE io IS NOT NULL OR imei % 2 = 0 LIMIT 20000)";
    let columns: String = client.query_one(present, &[]).await.unwrap().get(0);
    let out = format!("COPY (SELECT {columns} FROM positions ORDER BY imei, ts) TO STDOUT (FORMAT binary)");
    let parts: Vec<Bytes> = pin!(client.copy_out(&out).await.unwrap()).map(Result::unwrap).collect().await;
    client
        .batch_execute(
            "CREATE TABLE raw (LIKE positions INCLUDING ALL);
             SELECT create_hypertable('raw', by_range('ts', INTERVAL '1 day'), create_default_indexes => false);
             CHECKPOINT",
        )
        .await
        .unwrap();
    let begun = Instant::now();
    let mut sink = pin!(client.copy_in(&format!("COPY raw ({columns}) FROM STDIN (FORMAT binary)")).await.unwrap());
    for part in parts {
        sink.send(part).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), rows);
    per_second(rows, begun)
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn per_second(rows: u64, begun: Instant) -> f64 {
    rows as f64 / begun.elapsed().as_secs_f64()
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
