//! Socket to committed rows, next to raw binary COPY of the same rows into the same kind of table by one connection.
//!
//! The service is the real binary; load, service and database share this machine. Prints one JSON line: the figures of the
//! contract, null if the chosen parts do not measure them, and an object for each part. `BENCH_PART` chooses parts, by
//! commas (burst,half):
//!
//! | part | does |
//! |---|---|
//! | burst | a million rows, 10 a packet; first byte to last commit; takes turns with the COPY, each first every other time |
//! | single | the same with 1-record packets |
//! | sustained | a load that never pauses, `BENCH_SECONDS` (30); commits a second without the first two; COPY before and after |
//! | half | half of the burst's rate, `BENCH_SECONDS` (20): answers, and the disk's syncs under a COPY at that rate |
//! | devices | 100, 1,000 and 10,000 trackers at that same rate, `BENCH_SECONDS` (20) each, into one table |
//! | trackers | the burst by 20 to 10,000 trackers, one table each, next to COPY of the same rows |
//! | steady | four fifths of the sustained rate, or `BENCH_RATE`, for `BENCH_SECONDS` (1800): memory, every row counted |
//! | outage | `BENCH_RATE` (30000), the database stopped for `BENCH_SECONDS` (600): drain rate and answer times |
//! | pressure | an unthrottled load, `BENCH_SECONDS` (600), and a small journal: memory, and every row counted at the end |
//!
//! Variables: `DATABASE_URL` (from `scripts/services env`), `BENCH_ROWS` (1000000), `BENCH_DEVICES` (2000), `BENCH_RUNS` (5,
//! single 3), `BENCH_RATE` (rows a second of a paced part), `BENCH_WINDOW` (1; packets sent before an answer is awaited),
//! `BENCH_PLOTS` (a directory: half, trackers, steady and outage draw what they measured).
//! `ODOGRAPH_…` settings reach the service.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and figures of a run are far below 2^53"
)]

#[path = "ingest/bench.rs"]
mod bench;
#[path = "ingest/burst.rs"]
mod burst;
#[path = "ingest/cpu.rs"]
mod cpu;
#[path = "ingest/database.rs"]
mod database;
#[path = "ingest/devices.rs"]
mod devices;
#[path = "ingest/disk.rs"]
mod disk;
#[path = "ingest/half.rs"]
mod half;
mod load;
#[path = "ingest/outage.rs"]
mod outage;
mod plot;
#[path = "ingest/pressure.rs"]
mod pressure;
#[path = "ingest/service.rs"]
mod service;
#[path = "ingest/steady.rs"]
mod steady;
#[path = "ingest/sustained.rs"]
mod sustained;
#[path = "ingest/trackers.rs"]
mod trackers;

use serde_json::{Map, Value as Json};

use bench::IngestBench;

fn main() {
    load::run_if_asked();
    let mut bench = IngestBench::from_environment();
    let parts = std::env::var("BENCH_PART").unwrap_or_else(|_| "burst,half".to_owned());
    let mut line: Map<String, Json> = CONTRACT.iter().map(|name| ((*name).to_owned(), Json::Null)).collect();
    for part in parts.split(',') {
        eprintln!("== {part}");
        let figures = match part {
            "burst" => burst::run(&mut bench, 10),
            "single" => burst::run(&mut bench, 1),
            "sustained" => sustained::run(&mut bench),
            "half" => half::run(&mut bench),
            "devices" => devices::run(&mut bench),
            "outage" => outage::run(&mut bench),
            "pressure" => pressure::run(&bench),
            "steady" => steady::run(&mut bench),
            "trackers" => trackers::run(&mut bench),
            other => panic!("BENCH_PART: unknown part {other}"),
        };
        for name in CONTRACT {
            // The first part that has a figure gives it.
            if line[name].is_null() && !figures[name].is_null() {
                line[name] = figures[name].clone();
            }
        }
        line.insert(part.to_owned(), figures);
    }
    println!("{}", Json::Object(line));
}

const CONTRACT: [&str; 8] = [
    "copy_rows_per_s",
    "ingest_rows_per_s",
    "ratio",
    "ack_ms_p50",
    "ack_ms_p99",
    "sync_ms_p50",
    "sync_ms_p99",
    "rss_mib",
];
