//! The store's complete transactions, next to raw binary COPY of the same rows by one connection into the same emptied
//! table, in turns.
//!
//! Prints one JSON line. A run writes a million rows of a fleet's records, 10 a frame; rates are of distinct rows.
//! `ratio` times [`Store::commit`]: sorting, encoding, fence, COPY, rows that are perhaps stored, latest positions
//! once a second, checkpoint. `whole_ratio` adds the decoding, the filter and the building of batches on the same thread.
//!
//! Variables: `DATABASE_URL` (from `scripts/services env`); `BENCH_RUNS` (5); `BENCH_ROWS` (1000000), `BENCH_BATCH` (50000);
//! `BENCH_TABLE=1` prints a line for each of 200, 2,000 and 20,000 trackers, 0, 5 and 50 % resent records, one and two lanes;
//! `BENCH_BATCHES=1` one for each of several batch sizes; `BENCH_KEYS=1` for the order of the rows and for an index on time.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a benchmark fails by panicking; counts are small")]

#[path = "store/load.rs"]
mod load;

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt as _;
use load::Load;
use odograph::ingest::drain::{BatchBuilder, DuplicateFilter, FilterSizes};
use odograph::store::server_of;
use odograph::store::{
    BatchSpan, Checkpoint, CommitOutcome, DatabaseUrl, Lane, PostgresStore, Store as _, encode_copy,
};
use odograph_journal::{JournalId, Mark, Position};
use odograph_testkit::TestDatabase;
use odograph_testkit::database::connect;
use serde_json::json;

fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL is not set: eval \"$(scripts/services env)\" first");
    let bench = Bench::new(&url);
    let chosen = |name: &str| std::env::var(name).is_ok_and(|value| value == "1");
    let usual = Scenario::default();
    if chosen("BENCH_ROW") {
        println!("{:?} {:?}", load::row_ns(50, 1_000), load::row_ns(2_000, 50_000));
    } else if chosen("BENCH_TABLE") {
        for devices in [200, 2_000, 20_000] {
            for resent in [0, 5, 50] {
                for lanes in [1, 2] {
                    println!("{}", bench.line(Scenario { devices, resent, lanes, ..usual }));
                }
            }
        }
    } else if chosen("BENCH_BATCHES") {
        for batch in [1_000, 5_000, 10_000, 20_000, 50_000, 100_000] {
            println!("{}", bench.line(Scenario { batch, ..usual }));
        }
    } else if chosen("BENCH_KEYS") {
        for sorted in [true, false] {
            println!("{}", bench.line(Scenario { sorted, ..usual }));
        }
        bench.admin("CREATE INDEX positions_ts_idx ON positions USING brin (ts) WITH (autosummarize)");
        println!("{}", bench.line(usual));
    } else {
        let mut line = bench.line(usual);
        let many = bench.line(Scenario { devices: 10_000, ..usual });
        line["latest_ratio_10000"] = many["ratio"].clone();
        // Of a batch that fits the core's cache, and of a whole one, which waits for memory.
        let ((encode, build), (encode_whole, build_whole)) = (load::row_ns(50, 1_000), load::row_ns(2_000, 50_000));
        line["row_ns"] = json!({
            "encode": encode, "build": build, "encode_50000": encode_whole, "build_50000": build_whole,
        });
        println!("{line}");
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    devices: u32,
    /// Percentage of the records that are sent a second time.
    resent: u32,
    lanes: u16,
    batch: usize,
    rows: u64,
    /// Whether the raw COPY sends its rows in the order of the key, as the store does.
    sorted: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        let (batch, rows) = (number("BENCH_BATCH", 50_000), number("BENCH_ROWS", 1_000_000));
        Self { devices: 2_000, resent: 5, lanes: 1, batch: usize::try_from(batch).unwrap(), rows, sorted: true }
    }
}

struct Bench {
    _database: TestDatabase,
    url: String,
    runtime: tokio::runtime::Runtime,
}

/// Seconds of one run.
#[derive(Clone, Copy, Debug, Default)]
struct StageTimes {
    commit: f64,
    whole: f64,
}

impl Bench {
    /// Creates a database for the benchmark.
    fn new(server: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let database = runtime.block_on(TestDatabase::postgres_in(server));
        Self { url: database.url(), _database: database, runtime }
    }

    fn line(&self, scenario: Scenario) -> serde_json::Value {
        let load = Load::new(scenario.devices, scenario.rows, scenario.resent);
        let payloads = raw_payloads(&load, scenario);
        let (mut raw, mut store, mut whole, mut ratios, mut wholes) = (vec![], vec![], vec![], vec![], vec![]);
        let rows = load.distinct as f64;
        for run in 0..number("BENCH_RUNS", 5) {
            let (mut copied, mut took) = (0.0, StageTimes::default());
            // The two take turns at going first.
            for half in 0..2 {
                self.empty();
                if (run + half) % 2 == 0 {
                    copied = rows / self.runtime.block_on(raw_copy(&self.url, &payloads));
                } else {
                    took = self.store(&load, scenario);
                    self.check(&load);
                }
            }
            raw.push(copied);
            store.push(rows / took.commit);
            whole.push(rows / took.whole);
            ratios.push(rows / took.commit / copied);
            wholes.push(rows / took.whole / copied);
        }
        json!({
            "devices": scenario.devices, "resent_percent": scenario.resent, "lanes": scenario.lanes,
            "batch_rows": scenario.batch, "rows": load.distinct, "runs": ratios.len(), "raw_sorted": scenario.sorted,
            "copy_rows_per_s": median(&mut raw).round(), "store_rows_per_s": median(&mut store).round(),
            "ratio": thousandths(median(&mut ratios)), "whole_ratio": thousandths(median(&mut wholes)),
        })
    }

    /// Runs every lane on its own thread. The time is that of the slowest lane.
    fn store(&self, load: &Load, scenario: Scenario) -> StageTimes {
        let journal = JournalId::random();
        let lanes: Vec<_> = (0..scenario.lanes).map(|number| Lane { journal, number, lanes: scenario.lanes }).collect();
        let begun = Instant::now();
        let took: Vec<StageTimes> = std::thread::scope(|scope| {
            let run = |lane| scope.spawn(move || commit_all(&self.url, load, lane, scenario));
            let threads: Vec<_> = lanes.into_iter().map(run).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // Two lanes share the machine: their own times overlap.
        let slowest = |time: fn(&StageTimes) -> f64| took.iter().map(time).fold(0.0, f64::max);
        let commit = if scenario.lanes == 1 { slowest(|took| took.commit) } else { begun.elapsed().as_secs_f64() };
        StageTimes { commit, whole: slowest(|took| took.whole) }
    }

    fn empty(&self) {
        self.admin("TRUNCATE positions, latest_positions, ingest_checkpoints");
        self.admin("CHECKPOINT");
    }

    /// Asserts that no row is lost: a fast store that loses rows is worthless.
    fn check(&self, load: &Load) {
        let count = self.runtime.block_on(async {
            let client = connect(&self.url).await;
            client.query_one("SELECT count(*) FROM positions", &[]).await.unwrap().get::<_, i64>(0)
        });
        assert_eq!(u64::try_from(count).unwrap(), load.distinct);
    }

    fn admin(&self, sql: &str) {
        self.runtime.block_on(async { connect(&self.url).await.batch_execute(sql).await.unwrap() });
    }
}

/// Encodes the rows of each batch as one COPY, before the measurement.
fn raw_payloads(load: &Load, scenario: Scenario) -> Vec<(String, Bytes)> {
    let mut builder = BatchBuilder::new(load::ANY_TIME, DuplicateFilter::new(FilterSizes::default()));
    let mut payloads = Vec::new();
    let mut finish = |builder: &mut BatchBuilder| {
        if scenario.sorted {
            builder.batch().sort();
        }
        let mut bytes = Vec::new();
        let columns = encode_copy(&builder.batch().new, |part| bytes.extend_from_slice(part)).unwrap();
        payloads.push((columns, bytes.into()));
        builder.abandon();
    };
    for frame in load.frames().filter(|frame| !frame.again) {
        // Every row is new here: a false positive of the filter must not leave one out.
        builder.frame(&frame.frame(Position(0))).unwrap();
        let batch = builder.batch();
        if batch.new.len() + batch.perhaps_stored.len() >= scenario.batch {
            load::all_as_new(batch);
            finish(&mut builder);
        }
    }
    load::all_as_new(builder.batch());
    if !builder.batch().new.is_empty() {
        finish(&mut builder);
    }
    payloads
}

async fn raw_copy(url: &str, payloads: &[(String, Bytes)]) -> f64 {
    let client = connect(url).await;
    let begun = Instant::now();
    for (columns, bytes) in payloads {
        client.batch_execute("BEGIN").await.unwrap();
        let copy = format!("COPY positions ({columns}) FROM STDIN (FORMAT binary)");
        let mut sink = pin!(client.copy_in::<_, Bytes>(&copy).await.unwrap());
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            sink.send(rest.split_to(rest.len().min(64 * 1024))).await.unwrap();
        }
        sink.finish().await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
    }
    begun.elapsed().as_secs_f64()
}

fn commit_all(url: &str, load: &Load, lane: Lane, scenario: Scenario) -> StageTimes {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut store = PostgresStore::new(server_of(&DatabaseUrl::parse(url).unwrap()).unwrap(), lane).unwrap();
        let mut cursor = store.open_lane().await.unwrap();
        let mut builder = BatchBuilder::new(load::ANY_TIME, DuplicateFilter::new(FilterSizes::default()));
        let (mut took, begun) = (StageTimes::default(), Instant::now());
        let mut newest_written = Instant::now();
        let mut frames = load.frames().filter(|frame| frame.lane(lane.lanes) == lane.number).peekable();
        let mut next = 0;
        while frames.peek().is_some() {
            while builder.batch().offered() < scenario.batch as u64
                && let Some(frame) = frames.next()
            {
                builder.frame(&frame.frame(Position(next))).unwrap();
                next += 1;
            }
            let mark = Mark { position: Position(next), tag: 1 };
            let mut newest = cursor.latest;
            if newest_written.elapsed() >= Duration::from_secs(1) {
                builder.add_latest();
                (newest, newest_written) = (mark.position, Instant::now());
            }
            let to = Checkpoint { mark, latest: newest };
            let step = BatchSpan { from: cursor.mark, to };
            let committing = Instant::now();
            let CommitOutcome::Committed(done) = store.commit(builder.batch(), &step).await.unwrap() else {
                panic!("fenced");
            };
            took.commit += committing.elapsed().as_secs_f64();
            builder.committed(&done);
            cursor = to;
        }
        took.whole = begun.elapsed().as_secs_f64();
        took
    })
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
