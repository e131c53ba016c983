//! The cost of an idle connection: the service's resident memory for each of as many logged-in trackers as the file
//! limit allows, after login, after two frames each at a moderate rate, and for another fleet whose frames came at once. The
//! trackers are a separate process.
//!
//! A service that has just started has not yet taken the memory that frames need on their way, so some trackers first send
//! as many frames as will be measured, and leave. Prints one JSON line. Variables: `DATABASE_URL` (from `scripts/services
//! env`), `BENCH_CONNECTIONS` (the file limit without some), `BENCH_FRAMES` (2), `BENCH_RATE` (50000 records a second).
//! `ODOGRAPH_…` settings reach the service; the trackers are registered, so `ODOGRAPH_ADMISSION=registered` can be measured.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and figures of a run are far below 2^53"
)]

#[path = "ingest/cpu.rs"]
#[allow(dead_code, reason = "shared with the benchmark ingest")]
mod cpu;
#[path = "ingest/database.rs"]
#[allow(dead_code, reason = "shared with the benchmark ingest")]
mod database;
#[allow(dead_code, unused_imports, reason = "shared with other benchmarks")]
mod load;
#[path = "ingest/service.rs"]
#[allow(dead_code, reason = "shared with the benchmark ingest")]
mod service;

use std::time::{Duration, Instant};

use odograph::store::MigrateOptions;
use odograph_fleet::test_imei;

use database::Database;
use load::{Load, Settings};
use service::Service;

fn main() {
    load::run_if_asked();
    let server =
        std::env::var("DATABASE_URL").expect("DATABASE_URL is not set: eval \"$(scripts/services env)\" first");
    let number = |name: &str, default: u32| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let files = u32::try_from(rlimit::increase_nofile_limit(u64::MAX).unwrap()).unwrap_or(u32::MAX);
    let connections = number("BENCH_CONNECTIONS", files.saturating_sub(OTHER_FILES).min(MOST));
    let frames = number("BENCH_FRAMES", 2);

    let options = MigrateOptions { standalone_devices: true, ..MigrateOptions::default() };
    let database = Database::new(&server, &options);
    database.run(&format!(
        "INSERT INTO devices (imei) SELECT lpad(({} + n)::text, 15, '0') FROM generate_series(0, {}) AS n",
        test_imei(0).get(),
        WARM + 2 * connections
    ));
    let service = Service::start(&database.url, &[]);
    let started = service.memory_kib().1;
    let usual = Settings::new(service.trackers);
    let first = Settings { devices: WARM, packets: Some(connections * frames / WARM), ..usual };
    let mut load = Load::prepare(&first);
    load.go();
    let warmed = load.report();
    drop(load);
    settle(&service, 0, warmed.records);
    let empty = service.memory_kib().1;

    let mut sent = warmed.records;
    let mut fleet = |first_device, rate| {
        let packets = Some(frames);
        let settings = Settings { devices: connections, packets, first_device, rate, sources: SOURCES, ..usual };
        let mut load = Load::prepare(&settings);
        settle(&service, connections, sent);
        let logged_in = service.memory_kib().1;
        load.go();
        let report = load.report();
        assert_eq!((report.lost, report.unanswered), (0, 0), "connections lost, packets unanswered");
        sent += report.records;
        settle(&service, connections, sent);
        let after = service.memory_kib();
        drop(load);
        settle(&service, 0, sent);
        (logged_in, after, report.frame_bytes)
    };
    let (logged_in, (_, after_frames), frame_bytes) = fleet(WARM, Some(number("BENCH_RATE", 50_000).into()));
    let (_, (peak, after_crowd), _) = fleet(WARM + connections, None);
    let left = service.memory_kib().1;

    let each = |kib: u64| ((kib as f64 - empty as f64) * 1024.0 / f64::from(connections)).round();
    let mib = |kib: u64| (kib as f64 / 102.4).round() / 10.0;
    println!(
        "{}",
        serde_json::json!({
            "connections": connections, "file_limit": files, "frames_each": frames, "frame_bytes": frame_bytes.round(),
            "bytes_after_login": each(logged_in), "bytes_after_frames": each(after_frames),
            "bytes_after_frames_at_once": each(after_crowd),
            "rss_mib_started": mib(started), "rss_mib_warm": mib(empty), "rss_mib_logged_in": mib(logged_in),
            "rss_mib_after_frames": mib(after_frames), "rss_mib_after_frames_at_once": mib(after_crowd), "rss_mib_peak": mib(peak),
            "rss_mib_when_all_left": mib(left),
        })
    );
}

/// Waits until this many connections are open and everything is committed, and then for the service's own chores.
fn settle(service: &Service, connections: u32, records: u64) {
    let begun = Instant::now();
    loop {
        let metrics = service.metrics();
        let open = metrics.sum("odograph_connections_open");
        if open as u32 == connections && metrics.counts().is_settled(records) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{open} connections open, {:?}", metrics.counts());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(CHORES);
}

/// The service's, which are more than the load's: database, journal, admin, and what it keeps free.
const OTHER_FILES: u32 = 200;
/// More would not help: the kernel's own memory for sockets would be the limit.
const MOST: u32 = 100_000;
const SOURCES: u8 = 8;
const WARM: u32 = 200;
const PATIENCE: Duration = Duration::from_mins(2);
const CHORES: Duration = Duration::from_secs(2);
