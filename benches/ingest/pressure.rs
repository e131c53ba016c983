//! The part pressure: a load too fast for any database, and a small journal. Memory must be flat, and no row lost.
//!
//! Minutes of it would fill the disk, so chunks that no tracker writes to any more are counted and dropped meanwhile.

use std::time::{Duration, Instant};

use odograph::store::MigrateOptions;
use serde_json::{Value as Json, json};

use super::bench::{IngestBench, check, mib, seconds, settled};
use super::database::Database;
use super::load::Load;
use super::service::Service;

pub fn run(bench: &IngestBench) -> Json {
    let time = seconds(600);
    let database =
        Database::new(&bench.server, &MigrateOptions { chunk_interval: Some(CHUNK), ..MigrateOptions::default() });
    let journal = std::env::var(JOURNAL_MAX_SIZE).unwrap_or_else(|_| "512MiB".to_owned());
    let service = Service::start(&database.url, &[(JOURNAL_MAX_SIZE, &journal)]);
    let mut load = Load::prepare(&bench.endless(service.trackers));
    let (mut counted, mut memory, begun) = (0, Vec::new(), Instant::now());
    load.go();
    while begun.elapsed() < time {
        std::thread::sleep(EVERY.min(time.saturating_sub(begun.elapsed())));
        counted += database.count_and_drop_chunks();
        let counts = service.metrics().counts();
        assert!(counts.is_conserved(), "{counts:?}");
        memory.push(mib(service.memory_kib().1));
        eprintln!(
            "{:.0} s: {} MiB, {counted} rows dropped, {counts:?}",
            begun.elapsed().as_secs_f64(),
            memory.last().unwrap()
        );
    }
    load.stop();
    let report = load.report();
    let (metrics, ended) = settled(&service, report.records);
    counted += database.count();
    let counts = metrics.counts();
    let (peak, at_end) = service.memory_kib();
    // The first quarter is for filling journal and buffers.
    let steady = &memory[memory.len() / 4..];
    let (low, high) = steady.iter().fold((f64::MAX, 0.0_f64), |(low, high), mib| (low.min(*mib), high.max(*mib)));
    let line = json!({
        "seconds": time.as_secs(), "journal_max_size": journal, "ingest_rows_per_s":
            (report.distinct as f64 / (ended - report.first_byte_s)).round(),
        "acknowledged": report.records, "distinct": report.distinct, "counts": counts, "rows": counted,
        "missing": report.distinct.saturating_sub(counted), "twice": counted.saturating_sub(report.distinct),
        "rss_mib": mib(peak), "rss_mib_steady_low": low, "rss_mib_steady_high": high, "rss_mib_at_end": mib(at_end),
        "rss_mib_samples": memory, "client_ack_ms": report.ack_ms,
        "drained_s_after_load": ((ended - report.last_ack_s) * 10.0).round() / 10.0,
    });
    eprintln!("{line}");
    check(&report, &metrics, None);
    assert_eq!(counted, report.distinct, "rows that were in the table");
    line
}

const JOURNAL_MAX_SIZE: &str = "ODOGRAPH_JOURNAL_MAX_SIZE";
pub const CHUNK: Duration = Duration::from_hours(1);
pub const EVERY: Duration = Duration::from_secs(10);
