//! Shared by all parts: the size of a run, one ingest run with everything it needs, and the rows that it stored.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use odograph::store::MigrateOptions;
use serde_json::{Value as Json, json};

use super::cpu::{ProcessTime, thousandths};
use super::database::{BATCH, Database, Order, Rows};
use super::load::{Load, Report, Settings, monotonic_s};
use super::service::{Metrics, Service};

pub struct IngestBench {
    pub server: String,
    pub devices: u32,
    rows: u32,
    rate: Option<f64>,
    window: usize,
    /// The rows of the first ingest: in the order of the key, and in the order of arrival.
    copies: Option<[Rows; 2]>,
    /// Rows a second of an ingest.
    measured: Option<f64>,
}

/// One ingest of some rows: from the first byte to the last commit.
pub struct Ingest {
    pub rows_per_s: f64,
    /// Commits a second while the load was running.
    pub while_loading: f64,
    pub rss_mib: f64,
    /// Processor seconds for a million records.
    pub cpu: Json,
    pub load: Report,
}

impl IngestBench {
    pub fn from_environment() -> Self {
        let server =
            std::env::var("DATABASE_URL").expect("DATABASE_URL is not set: eval \"$(scripts/services env)\" first");
        Self {
            server,
            devices: number("BENCH_DEVICES", 2_000),
            rows: number("BENCH_ROWS", 1_000_000),
            rate: std::env::var("BENCH_RATE").ok().map(|text| text.parse().unwrap()),
            window: number("BENCH_WINDOW", 1),
            copies: None,
            measured: None,
        }
    }

    pub fn database(&self) -> Database {
        Database::new(&self.server, &MigrateOptions::default())
    }

    /// A load of the wanted number of rows, in whole packets of each tracker.
    pub fn load(&self, target: SocketAddr, records: u8) -> Settings {
        let packets = (self.rows / self.devices / u32::from(records)).max(1);
        Settings {
            devices: self.devices,
            records,
            packets: Some(packets),
            window: self.window,
            ..Settings::new(target)
        }
    }

    /// The same load without an end.
    pub fn endless(&self, target: SocketAddr) -> Settings {
        Settings { packets: None, ..self.load(target, 10) }
    }

    /// The rate of a paced part: the given rate, or half of what an ingest reaches.
    pub fn paced_rate(&mut self) -> f64 {
        if let Some(rate) = self.rate {
            return rate;
        }
        if self.measured.is_none() {
            self.measured = Some(self.ingest(10).rows_per_s);
        }
        self.measured.unwrap() / 2.0
    }

    /// The rate in `BENCH_RATE`.
    pub fn given_rate(&self) -> Option<f64> {
        self.rate
    }

    /// Ingests the rows into a new database. Keeps the rows of the first ingest for the COPY.
    pub fn ingest(&mut self, records: u8) -> Ingest {
        let database = self.database();
        let service = Service::start(&database.url, &[]);
        let settings = self.load(service.trackers, records);
        let mut load = Load::prepare(&settings);
        database.settle();
        let server = database.server();
        let (service_before, server_before) = (ProcessTime::of(service.pid()), server.cpu_s());
        load.go();
        let report = load.report();
        let loaded = service.metrics().counts().committed as f64 / report.seconds();
        let (metrics, ended) = settled(&service, report.records);
        let (service_after, server_after) = (ProcessTime::of(service.pid()), server.cpu_s());
        check(&report, &metrics, Some(settings.packets.unwrap() * settings.devices * u32::from(records)));
        assert_eq!(database.count(), report.distinct, "rows in the table");

        let millions = report.distinct as f64 / 1e6;
        let server_cpu =
            server_after.zip(server_before).map(|(after, before)| thousandths((after - before) / millions));
        let rows_per_s = report.distinct as f64 / (ended - report.first_byte_s);
        eprintln!("ingest: {rows_per_s:.0} rows/s");
        if self.copies.is_none() {
            let rss = service.memory_kib().0;
            eprintln!("peak {} MiB; taking the rows out", rss / 1024);
            self.copies = Some([Order::Key, Order::Arrival].map(|order| database.rows(order)));
        }
        Ingest {
            rows_per_s,
            while_loading: loaded,
            rss_mib: mib(service.memory_kib().0),
            cpu: json!({
                "load": thousandths(report.cpu_s / millions), "load_user": thousandths(report.user_s / millions),
                "service": service_after.per_million_since(&service_before, report.distinct), "database": server_cpu,
            }),
            load: report,
        }
    }

    /// Rows a second of raw COPY into a new table, in both orders, and the database's processor seconds for a million rows.
    pub fn copy(&mut self) -> ([f64; 2], Option<f64>) {
        let copies = self.copies();
        let mut cpu = None;
        let rates = copies.each_ref().map(|rows| {
            let database = self.database();
            database.settle();
            let server = database.server();
            let before = server.cpu_s();
            let rate = rows.len() as f64 / database.copy(rows, "positions", BATCH);
            let used = server.cpu_s().zip(before).map(|(after, before)| (after - before) / (rows.len() as f64 / 1e6));
            // Of the first order, which the ratio refers to.
            cpu = cpu.or(used.map(thousandths));
            rate
        });
        eprintln!("COPY: {:.0} rows/s by the key, {:.0} as they came", rates[0], rates[1]);
        (rates, cpu)
    }

    /// The rows for the COPY. Runs an ingest first if there are none yet. A clone shares the bytes.
    pub fn copies(&mut self) -> [Rows; 2] {
        if self.copies.is_none() {
            self.ingest(10);
        }
        self.copies.clone().unwrap()
    }

    /// Sets the measured rate, of which paced parts take half.
    pub fn measured(&mut self, rows_per_s: f64) {
        self.measured = Some(rows_per_s);
    }

    /// Forgets the rows, because another part has other rows.
    pub fn forget_copies(&mut self) {
        self.copies = None;
    }
}

/// Waits until everything is committed. Returns the last metrics and their time.
pub fn settled(service: &Service, records: u64) -> (Metrics, f64) {
    let begun = Instant::now();
    loop {
        let metrics = service.metrics();
        let now = monotonic_s();
        let counts = metrics.counts();
        if counts.is_settled(records) {
            return (metrics, now);
        }
        assert!(begun.elapsed() < DRAIN_PATIENCE, "not drained: {counts:?}");
        // Poll often only near the end: a scrape costs the service time.
        let left = Duration::from_secs_f64(counts.waiting as f64 / FASTER_THAN_ANY);
        std::thread::sleep(left.clamp(Duration::from_millis(3), Duration::from_millis(200)));
    }
}

/// Asserts that no row is lost: a fast ingest that loses rows is worthless.
pub fn check(report: &Report, metrics: &Metrics, distinct: Option<u32>) {
    let counts = metrics.counts();
    assert_eq!((report.lost, report.unanswered), (0, 0), "connections lost, packets unanswered");
    assert_eq!(distinct.map_or(report.distinct, u64::from), report.distinct, "records acknowledged");
    assert!(counts.is_conserved(), "{counts:?}");
    assert_eq!((counts.journaled, counts.acknowledged), (report.records, report.records), "{counts:?}");
    assert_eq!((counts.committed, counts.quarantined), (report.distinct, 0), "{counts:?}");
}

pub fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

pub fn seconds(default: u64) -> Duration {
    Duration::from_secs(number("BENCH_SECONDS", default))
}

pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

pub fn mib(kib: u64) -> f64 {
    (kib as f64 / 102.4).round() / 10.0
}

/// Rows a second.
const FASTER_THAN_ANY: f64 = 2e6;
const DRAIN_PATIENCE: Duration = Duration::from_mins(15);
