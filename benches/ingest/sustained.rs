//! The part sustained: the load never pauses. Measures commits a second, next to raw COPY just before and just after.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::bench::{IngestBench, mib, seconds};
use super::cpu::{ProcessTime, thousandths};
use super::load::{Load, monotonic_s};
use super::service::Service;

pub fn run(bench: &mut IngestBench) -> Json {
    let time = seconds(30);
    let (before, _) = bench.copy();
    let database = bench.database();
    let service = Service::start(&database.url, &[]);
    let mut load =
        Load::prepare(&super::load::Settings { rate: bench.given_rate(), ..bench.endless(service.trackers) });
    database.settle();
    let server = database.server();
    load.go();
    std::thread::sleep(START);
    let (service_before, server_before) = (ProcessTime::of(service.pid()), server.cpu_s());
    let (first, begun) = (service.metrics().counts(), monotonic_s());
    std::thread::sleep(time.saturating_sub(START));
    let (last, ended) = (service.metrics().counts(), monotonic_s());
    let (service_after, server_after) = (ProcessTime::of(service.pid()), server.cpu_s());
    load.stop();
    let report = load.report();
    let counts = service.metrics().counts();
    assert!(counts.is_conserved() && report.lost == 0 && report.unanswered == 0, "{counts:?}");
    // The backlog in the journal does not matter here.
    let rss_mib = mib(service.memory_kib().0);
    drop(service);
    drop(database);
    let (after, _) = bench.copy();

    let committed = last.committed - first.committed;
    let rate = committed as f64 / (ended - begun);
    let copies = [before, after].map(|rates| rates.map(f64::round));
    let copy = |order: usize| f64::midpoint(before[order], after[order]);
    let server_cpu = server_after.zip(server_before).map(|(a, b)| thousandths((a - b) / (committed as f64 / 1e6)));
    json!({
        "seconds": time.as_secs(), "offered_rows_per_s": bench.given_rate(),
        "copy_rows_per_s": copy(0).round(), "ingest_rows_per_s": rate.round(), "ratio": thousandths(rate / copy(0)),
        "copy_as_arrived_rows_per_s": copy(1).round(), "ratio_as_arrived": thousandths(rate / copy(1)),
        "copies": copies,
        "acknowledged_per_s": ((last.acknowledged - first.acknowledged) as f64 / (ended - begun)).round(),
        "waiting_at_start": first.waiting, "waiting_at_end": last.waiting, "rss_mib": rss_mib,
        "client_ack_ms": report.ack_ms, "load_cpu_s_per_million_sent": thousandths(report.cpu_s_per_million()),
        "cpu_s_per_million": {
            "service": service_after.per_million_since(&service_before, committed), "database": server_cpu,
        },
    })
}

/// Commits a second under a load that never pauses.
pub fn full_rate(bench: &IngestBench) -> f64 {
    let database = bench.database();
    let service = Service::start(&database.url, &[]);
    let mut load = Load::prepare(&bench.endless(service.trackers));
    database.settle();
    load.go();
    std::thread::sleep(START);
    let (first, begun) = (service.metrics().counts(), monotonic_s());
    std::thread::sleep(FULL);
    (service.metrics().counts().committed - first.committed) as f64 / (monotonic_s() - begun)
}

const FULL: Duration = Duration::from_secs(20);
const START: Duration = Duration::from_secs(2);
