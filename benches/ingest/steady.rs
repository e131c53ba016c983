//! The part steady: four fifths of the sustained rate, for half an hour. Memory must not grow after five minutes.

use std::time::Instant;

use odograph::store::MigrateOptions;
use serde_json::{Value as Json, json};

use super::bench::{IngestBench, check, mib, seconds, settled};
use super::cpu::thousandths;
use super::database::Database;
use super::load::{Load, Settings};
use super::plot::{Axis, Chart, Curve, draw};
use super::pressure::{CHUNK, EVERY};
use super::service::Service;
use super::sustained;

pub fn run(bench: &mut IngestBench) -> Json {
    let time = seconds(1_800);
    let rate = bench.given_rate().unwrap_or_else(|| {
        let full = sustained::full_rate(bench);
        eprintln!("full load: {full:.0} rows/s");
        full * SHARE
    });
    let database =
        Database::new(&bench.server, &MigrateOptions { chunk_interval: Some(CHUNK), ..MigrateOptions::default() });
    let service = Service::start(&database.url, &[]);
    let mut load = Load::prepare(&Settings { rate: Some(rate), gather_us: 0, ..bench.endless(service.trackers) });
    let (mut counted, mut memory, mut rates, mut p99, begun) = (0, Vec::new(), Vec::new(), Vec::new(), Instant::now());
    load.go();
    let mut before = service.metrics();
    while begun.elapsed() < time {
        std::thread::sleep(EVERY.min(time.saturating_sub(begun.elapsed())));
        counted += database.count_and_drop_chunks();
        let now = service.metrics();
        assert!(now.counts().is_conserved(), "{:?}", now.counts());
        memory.push(mib(service.memory_kib().1));
        rates.push((now.counts().committed - before.counts().committed) as f64 / EVERY.as_secs_f64());
        p99.push(now.quantile_since(&before, "odograph_ack_latency_seconds", 0.99).unwrap_or(0.0) * 1e3);
        eprintln!(
            "{:.0} s: {} MiB, {:.0} rows/s, waiting {}",
            begun.elapsed().as_secs_f64(),
            memory.last().unwrap(),
            rates.last().unwrap(),
            now.counts().waiting
        );
        before = now;
    }
    load.stop();
    let report = load.report();
    let (metrics, ended) = settled(&service, report.records);
    counted += database.count();
    let at = |share: f64| memory[((memory.len() as f64 * share) as usize).min(memory.len() - 1)];
    // Minute 5 of 30.
    let (early, late) = (at(5.0 / 30.0), at(1.0));
    let line = json!({
        "seconds": time.as_secs(), "offered_rows_per_s": rate.round(), "ingest_rows_per_s":
            (report.distinct as f64 / (ended - report.first_byte_s)).round(),
        "acknowledged": report.records, "distinct": report.distinct, "rows": counted,
        "missing": report.distinct.saturating_sub(counted), "twice": counted.saturating_sub(report.distinct),
        "rss_mib": mib(service.memory_kib().0), "rss_mib_minute_5": early, "rss_mib_end": late,
        "end_by_minute_5": thousandths(late / early), "rss_mib_samples": memory, "client_ack_ms": report.ack_ms,
    });
    plot(&memory, &rates, &p99);
    eprintln!("{line}");
    check(&report, &metrics, None);
    assert_eq!(counted, report.distinct, "rows that were in the table");
    line
}

fn plot(memory: &[f64], rates: &[f64], p99: &[f64]) {
    let step = EVERY.as_secs_f64() / 60.0;
    let chart = |title, label, name, values: &[f64]| Chart {
        title,
        x: Axis { label: "minutes", range: 0.0..(values.len() as f64 * step).max(step) },
        y: Axis::from_zero(label, values.iter().copied()),
        x_log: false,
        curves: vec![Curve::even(name, step, values)],
    };
    draw(
        "memory",
        &[
            chart("Resident memory at four fifths of full load", "MiB", "VmRSS of odograph", memory),
            chart("What is committed meanwhile", "rows a second", "committed", rates),
            chart("Frame to ACK written, p99 of each 10 seconds", "ms", "p99", p99),
        ],
    );
}

/// Of full load.
const SHARE: f64 = 0.8;
