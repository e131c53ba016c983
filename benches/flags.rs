//! Faulty flags, from the Redis stream to committed rows, next to a running ingest.
//!
//! Prints one JSON line. `flags_per_s`: single positions, spread over all devices and chunks, that wait in the stream when
//! the consumer starts. `range_flags_per_s`, `range_rows_per_s`: ten minutes each of a tracker that records every second.
//! `apply_ms_*`: from XADD to the entry of the corrected stream, which is written after the commit, by the ids that Redis
//! gives both, with `BENCH_RATE` flags a second next to an ingest at half its full rate. The row itself is earlier.
//! `paced_ingest_ratio`: of the rows offered then, those committed in the same time. `ingest_ratio_with_flags`: the full
//! rate of ingest while flags come, against the rate without, taking turns.
//!
//! Variables: `DATABASE_URL`, `REDIS_URL` (from `scripts/services env`); `BENCH_CHUNKS` (10) days of old positions,
//! `BENCH_FLAGS` (20000), `BENCH_RATE` (200) flags a second, `BENCH_SECONDS` (10), `BENCH_RUNS` (3).

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark fails by panicking; counts are small"
)]

#[path = "flags/ingest.rs"]
mod ingest;
#[path = "store/load.rs"]
#[allow(dead_code, reason = "shared with the benchmark of the store")]
mod load;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingest::Ingest;
use odograph::flags::{FlagConfig, FlagMetrics, FlagTasks, RedisUrl, spawn};
use odograph::health::Health;
use odograph::metrics::Registry;
use odograph::store::DatabaseUrl;
use odograph_testkit::TestDatabase;
use odograph_testkit::database::connect;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let bench = Bench::new().await;
    let flags = number("BENCH_FLAGS", 20_000);
    let single = bench.throughput((0..flags).map(|flag| bench.position(flag)).collect()).await;
    let ranges = number("BENCH_RANGES", 300);
    let range = bench.throughput((0..ranges).map(range_of).collect()).await;

    let (rate, seconds) = (number("BENCH_RATE", 200), number("BENCH_SECONDS", 10));
    let (mut without, mut with, mut next) = (Vec::new(), Vec::new(), flags);
    for _ in 0..number("BENCH_RUNS", 3) {
        without.push(bench.ingest(None, 0, &mut next, 0).await.rows_per_s);
        with.push(bench.ingest(None, rate, &mut next, 0).await.rows_per_s);
    }
    let full = median(&mut without);
    let paced = bench.ingest(Some(full / 2.0), rate, &mut next, seconds).await;
    let mut latency = paced.latency_ms;
    latency.sort_unstable();
    let at = |part: f64| latency[((latency.len() - 1) as f64 * part) as usize];
    println!(
        "{}",
        json!({
            "chunks": bench.chunks, "flags_per_s": single.round(), "range_flags_per_s": range.round(),
            "range_rows_per_s": (range * 600.0).round(), "beside": {"flags_per_s": rate, "rows_per_s": (full / 2.0).round()},
            "apply_ms_p50": at(0.5), "apply_ms_p99": at(0.99), "apply_ms_max": at(1.0), "samples": latency.len(),
            "paced_ingest_ratio": thousandths(paced.rows_per_s / (full / 2.0)),
            "ingest_rows_per_s": full.round(), "ingest_ratio_with_flags": thousandths(median(&mut with) / full),
        })
    );
}

struct Bench {
    _database: TestDatabase,
    url: String,
    redis_url: String,
    redis: MultiplexedConnection,
    chunks: u64,
    rows_a_day: u64,
}

/// The results of one run next to an ingest.
struct IngestStats {
    rows_per_s: f64,
    latency_ms: Vec<u64>,
}

/// A device and a time range, as the stream has them.
type Range = (u64, i64, i64);

impl Bench {
    /// Creates a database with about a million old positions.
    async fn new() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: eval \"$(scripts/services env)\" first"))
        };
        let (server, redis_url) = (variable("DATABASE_URL"), variable("REDIS_URL"));
        let database = TestDatabase::postgres_in(&server).await;
        let url = database.url();
        let chunks = number("BENCH_CHUNKS", 10);
        let rows_a_day = 1_000_000 / DEVICES / chunks;
        let client = connect(&url).await;
        for (devices, days, rows) in [(DEVICES, chunks, rows_a_day), (RANGE_DEVICES, 1, 7_200)] {
            // The ranges have the last day for themselves.
            let first = if days == 1 { RANGE_DAY } else { FIRST_DAY };
            let fill = format!(
                "INSERT INTO positions (imei, ts, fingerprint, longitude, latitude, altitude_m, angle_deg, speed_kmh, \
                     satellites, priority, codec, event_io_id, valid, received_at, ignition, external_voltage_mv) \
                 SELECT {FIRST_IMEI} + device, ts, 1, 25.28, 54.69, 112, 270, 83, 14, 1, 142, 0, true, ts, true, 12000 \
                 FROM generate_series(0, {devices} - 1) device, generate_series(0, {days} - 1) day, \
                     generate_series(0, {rows} - 1) second, \
                     LATERAL (SELECT to_timestamp({first} + day * 86400 + second) AS ts) AS t"
            );
            client.batch_execute(&fill).await.unwrap();
        }
        client.batch_execute("ANALYZE positions; CHECKPOINT").await.unwrap();
        let redis = redis::Client::open(redis_url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
        Self { _database: database, url, redis_url, redis, chunks, rows_a_day }
    }

    /// Returns a different position for each number: devices and days in turn.
    fn position(&self, number: u64) -> Range {
        let (device, rest) = (number % DEVICES, number / DEVICES);
        let (day, second) = (rest % self.chunks, rest / self.chunks);
        assert!(second < self.rows_a_day, "the database has too few positions");
        let at = (FIRST_DAY + day.cast_signed() * 86_400 + second.cast_signed()) * 1000;
        (FIRST_IMEI + device, at, at)
    }

    fn start(&self, stream: &str) -> FlagTasks {
        let settings = FlagConfig {
            database: DatabaseUrl::parse(&self.url).unwrap(),
            redis: Some(RedisUrl::parse(&self.redis_url).unwrap()),
            stream: stream.to_owned(),
            group: "odograph".into(),
            consumer: "bench".into(),
            corrected: format!("{stream}:corrected"),
        };
        let metrics = FlagMetrics::new(&Registry::new());
        spawn(settings, metrics, Arc::new(Health::default()), CancellationToken::new()).unwrap()
    }

    /// Returns flags a second, with all flags waiting at the start.
    async fn throughput(&self, ranges: Vec<Range>) -> f64 {
        let stream = stream_name();
        let mut redis = self.redis.clone();
        for chunk in ranges.chunks(1000) {
            let mut add = redis::Pipeline::new();
            for range in chunk {
                add.add_command(entry(&stream, Uuid::new_v4(), *range)).ignore();
            }
            add.exec_async(&mut redis).await.unwrap();
        }
        let begun = Instant::now();
        let tasks = self.start(&stream);
        let applied = "SELECT count(*) FROM position_flag_ledger WHERE applied_seq = seq";
        let client = connect(&self.url).await;
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let done: i64 = client.query_one(applied, &[]).await.unwrap().get(0);
            if usize::try_from(done).unwrap() == ranges.len() {
                break;
            }
        }
        let rate = ranges.len() as f64 / begun.elapsed().as_secs_f64();
        tasks.stop().await;
        self.empty(&stream).await;
        rate
    }

    /// Ingests at a pace, or as fast as possible, while flags arrive. Without a pace it ends after a million rows.
    async fn ingest(&self, pace: Option<f64>, rate: u64, next: &mut u64, seconds: u64) -> IngestStats {
        let client = connect(&self.url).await;
        client
            .batch_execute("DELETE FROM positions WHERE ts > '2026-05-28'; TRUNCATE ingest_checkpoints")
            .await
            .unwrap();
        client.batch_execute("VACUUM positions").await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
        let stream = stream_name();
        let tasks = (rate > 0).then(|| self.start(&stream));
        let rows = pace.map_or(1_000_000.0, |pace| pace * seconds as f64);
        let ingest = Ingest::start(self.url.clone(), rows as u64, pace);
        let mut redis = self.redis.clone();
        let (mut sent, mut ticks) = (HashMap::new(), tokio::time::interval(Duration::from_millis(10)));
        let begun = Instant::now();
        while !ingest.is_finished() {
            ticks.tick().await;
            let due = (begun.elapsed().as_secs_f64() * rate as f64) as usize;
            while sent.len() < due {
                let flag = Uuid::new_v4();
                let command = entry(&stream, flag, self.position(*next));
                let id: String = command.query_async(&mut redis).await.unwrap();
                sent.insert(flag.to_string(), id);
                *next += 1;
            }
        }
        let rows_per_s = ingest.rows_per_s();
        let latency_ms = if rate > 0 { self.latencies(&stream, &sent).await } else { Vec::new() };
        if let Some(tasks) = tasks {
            tasks.stop().await;
        }
        self.empty(&stream).await;
        IngestStats { rows_per_s, latency_ms }
    }

    /// The time between the entry and the correction of each flag.
    async fn latencies(&self, stream: &str, sent: &HashMap<String, String>) -> Vec<u64> {
        let ms = |id: &str| id.split_once('-').unwrap().0.parse::<u64>().unwrap();
        let mut redis = self.redis.clone();
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(format!("{stream}:corrected")).arg("-").arg("+");
            let told: Vec<(String, HashMap<String, String>)> = range.query_async(&mut redis).await.unwrap();
            if told.len() >= sent.len() {
                return told.iter().map(|(id, entry)| ms(id) - ms(&sent[&entry["flag_id"]])).collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn empty(&self, stream: &str) {
        let corrected = format!("{stream}:corrected");
        let mut redis = self.redis.clone();
        redis::cmd("DEL").arg(stream).arg(corrected).exec_async(&mut redis).await.unwrap();
        let forget = "TRUNCATE position_flag_ledger, position_flag_windows, position_corrections";
        connect(&self.url).await.batch_execute(forget).await.unwrap();
    }
}

fn stream_name() -> String {
    format!("bench_flags:{}", Uuid::new_v4())
}

/// Ten minutes, one after the other, devices in turn.
fn range_of(number: u64) -> Range {
    let from = (RANGE_DAY + (number / RANGE_DEVICES % 12).cast_signed() * 600) * 1000;
    (FIRST_IMEI + number % RANGE_DEVICES, from, from + 599_000)
}

fn entry(stream: &str, flag: Uuid, (imei, from, to): Range) -> redis::Cmd {
    let time = |ms: i64| {
        let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
        time.format(&time::format_description::well_known::Rfc3339).unwrap()
    };
    let new = json!({"imei": format!("{imei:015}"), "ts_from": time(from), "ts_to": time(to), "faulty": true});
    let mut add = redis::cmd("XADD");
    add.arg(stream).arg("*").arg("v").arg("1").arg("seq").arg("1").arg("op").arg("insert");
    add.arg("flag_id").arg(flag.to_string()).arg("old").arg("").arg("new").arg(new.to_string());
    add
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn thousandths(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

const DEVICES: u64 = 200;
const RANGE_DEVICES: u64 = 50;
const FIRST_IMEI: u64 = 350_000_000_000_000;
/// 2025-01-01, seconds.
const FIRST_DAY: i64 = 1_735_689_600;
/// 2026-05-20.
const RANGE_DAY: i64 = 1_779_235_200;
