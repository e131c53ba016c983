//! The part half: answer times at half of the full load, next to those of the disk under a COPY at that rate.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::bench::{IngestBench, check, mib, seconds, settled};
use super::cpu::{ProcessTime, thousandths};
use super::database::BATCH;
use super::disk::{syncs_beside, syncs_idle};
use super::load::{Load, Settings};
use super::plot::{Axis, Chart, Curve, draw};
use super::service::Service;

pub fn run(bench: &mut IngestBench) -> Json {
    let (time, rate) = (seconds(20), bench.paced_rate());
    let database = bench.database();
    let service = Service::start(&database.url, &[]);
    let warm_up_ms = u64::try_from(WARM_UP.as_millis()).unwrap();
    // Answers are read as they come: here they are measured.
    let settings = Settings { rate: Some(rate), gather_us: 0, warm_up_ms, ..bench.endless(service.trackers) };
    let mut load = Load::prepare(&settings);
    database.settle();
    load.go();
    std::thread::sleep(WARM_UP);
    let (before, cpu_before) = (service.metrics(), ProcessTime::of(service.pid()));
    std::thread::sleep(time);
    let (after, cpu_after) = (service.metrics(), ProcessTime::of(service.pid()));
    load.stop();
    let report = load.report();
    let (metrics, _) = settled(&service, report.records);
    check(&report, &metrics, None);
    let rss_mib = mib(service.memory_kib().0);
    drop((service, database));

    let rows = &bench.copies()[1];
    let idle = syncs_idle(IDLE);
    // Batches as large as the service's own.
    let batch = (after.commit_rows_since(&before).round() as usize).clamp(1_000, BATCH);
    let database = bench.database();
    let sync = syncs_beside(|| database.copy_paced(rows, rate, batch, time));

    let ack = |share| after.quantile_since(&before, ACK, share).map(|s| s * 1e3);
    let (p50, p99) = (ack(0.5), ack(0.99));
    plot(vec![
        Curve::new("write + fdatasync beside COPY", sync.shares),
        Curve::new("frame complete to ACK written", after.shares_since(&before, ACK)),
        Curve::new("as a tracker sees it", report.ack_shares.iter().copied()),
    ]);
    let committed = after.counts().committed - before.counts().committed;
    json!({
        "rate": rate.round(), "committed_rows_per_s": (committed as f64 / time.as_secs_f64()).round(),
        "ack_ms_p50": p50.map(thousandths), "ack_ms_p99": p99.map(thousandths),
        "ack_ms_p90": ack(0.9).map(thousandths), "client_ack_ms": report.ack_ms, "load_late_ms": thousandths(report.late_ms),
        "sync_ms_p50": thousandths(sync.p50), "sync_ms_p99": thousandths(sync.p99),
        "idle_sync_ms_p50": thousandths(idle.p50), "idle_sync_ms_p99": thousandths(idle.p99),
        "ack_p99_by_sync_p99": p99.map(|p99| thousandths(p99 / sync.p99)),
        "client_ack_p50_by_idle_sync_p50": thousandths(report.ack_ms.p50 / idle.p50),
        "batch_rows": batch, "rss_mib": rss_mib,
        "cpu_s_per_million": {
            "load": thousandths(report.cpu_s_per_million()),
            "service": cpu_after.per_million_since(&cpu_before, committed),
        },
    })
}

fn plot(curves: Vec<Curve>) {
    draw(
        "ack",
        &[Chart {
            title: "Answers at half load: the share within a time",
            x: Axis { label: "milliseconds", range: 0.05..100.0 },
            y: Axis { label: "share", range: 0.0..1.0 },
            x_log: true,
            curves,
        }],
    );
}

const ACK: &str = "odograph_ack_latency_seconds";
const WARM_UP: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(2);
