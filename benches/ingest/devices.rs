//! The part devices: more and more trackers at the same total rate, into one table.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::bench::{IngestBench, check, mib, seconds, settled};
use super::cpu::{ProcessTime, thousandths};
use super::load::{Load, Settings, monotonic_s};
use super::service::Service;

pub fn run(bench: &mut IngestBench) -> Json {
    let (time, rate) = (seconds(20), bench.paced_rate());
    let database = bench.database();
    let (mut lines, mut first_device) = (Vec::new(), 0);
    for devices in [100, 1_000, 10_000] {
        // A new service for each number of trackers, so that its memory belongs to them. The table is the same.
        let service = Service::start(&database.url, &[]);
        let target = service.trackers;
        let settings = Settings { devices, first_device, rate: Some(rate), gather_us: 0, ..bench.endless(target) };
        let mut load = Load::prepare(&settings);
        database.settle();
        let server = database.server();
        load.go();
        std::thread::sleep(WARM_UP);
        let (cpu, server_cpu) = (ProcessTime::of(service.pid()), server.cpu_s());
        let (before, begun) = (service.metrics().counts(), monotonic_s());
        std::thread::sleep(time);
        let (after, ended) = (service.metrics().counts(), monotonic_s());
        let (cpu_after, server_after) = (ProcessTime::of(service.pid()), server.cpu_s());
        load.stop();
        let report = load.report();
        check(&report, &settled(&service, report.records).0, None);
        let committed = after.committed - before.committed;
        let server_cpu = server_after.zip(server_cpu).map(|(a, b)| thousandths((a - b) / (committed as f64 / 1e6)));
        let (peak, now) = service.memory_kib();
        eprintln!("{devices} trackers: {:.0} rows/s", committed as f64 / (ended - begun));
        lines.push(json!({
            "devices": devices, "rows_per_s": (committed as f64 / (ended - begun)).round(),
            "waiting_at_end": after.waiting, "rss_mib": mib(peak), "rss_mib_at_end": mib(now),
            "client_ack_ms": report.ack_ms, "load_late_ms": thousandths(report.late_ms),
            "cpu_s_per_million": {
                "load": thousandths(report.cpu_s_per_million()),
                "service": cpu_after.per_million_since(&cpu, committed), "database": server_cpu,
            },
        }));
        first_device += devices;
    }
    let rate_of = |at: usize| lines[at]["rows_per_s"].as_f64().unwrap();
    json!({
        "rate": rate.round(), "rss_mib": lines[2]["rss_mib"].clone(),
        "rate_1000_by_100": thousandths(rate_of(1) / rate_of(0)), "rate_10000_by_1000": thousandths(rate_of(2) / rate_of(1)),
        "by_devices": lines,
    })
}

const WARM_UP: Duration = Duration::from_secs(3);
