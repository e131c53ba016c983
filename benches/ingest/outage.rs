//! The part outage: the database stops for `BENCH_SECONDS` (600) under a load of `BENCH_RATE`, and comes back. The backlog has
//! to drain at COPY's speed, and trackers must not notice.
//!
//! The database is a private server, which `scripts/services pg-stop` stops.

use std::time::{Duration, Instant};

use odograph::store::MigrateOptions;
use odograph_testkit::{PrivateServer, StopMode};
use serde_json::{Value as Json, json};

use super::bench::{IngestBench, check, mib, seconds, settled};
use super::cpu::thousandths;
use super::database::{BATCH, Database, Rows};
use super::load::{Load, Settings};
use super::plot::{Axis, Chart, Curve, draw};
use super::service::{Metrics, Service};

pub fn run(bench: &mut IngestBench) -> Json {
    let (time, rate) = (seconds(600), bench.given_rate().unwrap_or(30_000.0));
    let rows = bench.copies()[1].clone();
    let server = PrivateServer::new("bench-outage");
    let database = Database::new(&server.url, &MigrateOptions { chunk_interval: Some(CHUNK), ..Default::default() });
    let service = Service::start(&database.url, &[("ODOGRAPH_JOURNAL_MAX_SIZE", "8GiB")]);
    let mut load = Load::prepare(&Settings { rate: Some(rate), gather_us: 0, ..bench.endless(service.trackers) });
    load.go();
    std::thread::sleep(WARM_UP);
    let mut watch = Watch { service: &service, begun: Instant::now(), before: service.metrics(), samples: Vec::new() };
    let usual = watch.until(|_, since| since >= USUAL);
    server.stop(StopMode::Fast);
    watch.until(|_, since| since >= time);
    let most = watch.samples.last().unwrap().waiting;
    server.start();
    // One second of records always waits.
    let back = watch.until(|sample, _| (sample.waiting as f64) < rate);
    let after = watch.until(|_, since| since >= USUAL);
    load.stop();
    let report = load.report();
    let (metrics, _) = settled(&service, report.records);
    check(&report, &metrics, None);
    assert_eq!(database.count(), report.distinct, "rows in the table");
    let rss_mib = mib(service.memory_kib().0);
    let samples = watch.samples;
    drop((service, database));
    let copies: Vec<f64> = (0..COPIES).map(|_| copy(&server, &rows)).collect();
    let copy = copies.iter().sum::<f64>() / copies.len() as f64;
    plot(&samples, time);
    json!({
        "seconds": time.as_secs(), "offered_rows_per_s": rate.round(), "most_waiting": most,
        "drained_s": back.seconds.round(), "drain_rows_per_s": back.rows_per_s.round(),
        "copy_as_arrived_rows_per_s": copy.round(), "drain_by_copy": thousandths(back.rows_per_s / copy),
        "ack_ms_p99_usual": thousandths(usual.p99), "ack_ms_p99_while_draining": thousandths(back.p99),
        "ack_ms_p99_after": thousandths(after.p99), "p99_draining_by_usual": thousandths(back.p99 / usual.p99),
        "ack_ms_p50_usual": thousandths(usual.p50), "ack_ms_p50_while_draining": thousandths(back.p50),
        "acknowledged": report.records, "distinct": report.distinct, "rss_mib": rss_mib, "client_ack_ms": report.ack_ms,
    })
}

fn copy(server: &PrivateServer, rows: &Rows) -> f64 {
    let database = Database::new(&server.url, &MigrateOptions::default());
    database.settle();
    rows.len() as f64 / database.copy(rows, "positions", BATCH)
}

/// One second of the run.
struct Sample {
    at_s: f64,
    waiting: u64,
    p99_ms: f64,
}

struct Watch<'a> {
    service: &'a Service,
    begun: Instant,
    before: Metrics,
    samples: Vec<Sample>,
}

/// Rates and latencies of a period of the run.
struct WatchSummary {
    seconds: f64,
    rows_per_s: f64,
    p50: f64,
    p99: f64,
}

impl Watch<'_> {
    fn until(&mut self, mut done: impl FnMut(&Sample, Duration) -> bool) -> WatchSummary {
        let (begun, first) = (Instant::now(), self.service.metrics());
        loop {
            std::thread::sleep(EVERY);
            let now = self.service.metrics();
            let p99_ms = now.quantile_since(&self.before, ACK, 0.99).unwrap_or(0.0) * 1e3;
            let sample = Sample { at_s: self.begun.elapsed().as_secs_f64(), waiting: now.counts().waiting, p99_ms };
            let ended = done(&sample, begun.elapsed());
            if self.samples.len().is_multiple_of(10) {
                eprintln!("{:.0} s: {} waiting, p99 {p99_ms:.2} ms", sample.at_s, sample.waiting);
            }
            self.samples.push(sample);
            if ended {
                let seconds = begun.elapsed().as_secs_f64();
                let rows = (now.counts().committed - first.counts().committed) as f64;
                let ms = |share| now.quantile_since(&first, ACK, share).unwrap_or(0.0) * 1e3;
                return WatchSummary { seconds, rows_per_s: rows / seconds, p50: ms(0.5), p99: ms(0.99) };
            }
            self.before = now;
        }
    }
}

fn plot(samples: &[Sample], outage: Duration) {
    let curve = |name, of: fn(&Sample) -> f64| Curve::new(name, samples.iter().map(|s| (s.at_s / 60.0, of(s))));
    let title = format!("The database stops after a minute, for {} s, and comes back", outage.as_secs());
    let last = samples.last().unwrap().at_s / 60.0;
    let chart = |title, label, curve: Curve| Chart {
        title,
        x: Axis { label: "minutes", range: 0.0..last },
        y: Axis::from_zero(label, curve.points.iter().map(|(_, value)| *value)),
        x_log: false,
        curves: vec![curve],
    };
    draw(
        "backlog",
        &[
            chart(&*title, "records", curve("waiting in the journal", |sample| sample.waiting as f64)),
            chart("What trackers see of it", "ms", curve("frame to ACK, p99 of each second", |sample| sample.p99_ms)),
        ],
    );
}

const ACK: &str = "odograph_ack_latency_seconds";
const CHUNK: Duration = Duration::from_hours(6);
const EVERY: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_secs(10);
const USUAL: Duration = Duration::from_mins(1);
const COPIES: usize = 3;
