//! The registry of one running service: record counters that are taken at one instant, gauges that are brought up to date
//! before each answer, and the buckets of the histograms.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Recorder, counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::tally::Tally;
use crate::store::QuarantineReason;

/// The registry of one running service. Not global, so that several can run in one process.
pub struct Registry {
    recorder: PrometheusRecorder,
    tally: Arc<Tally>,
    published: Mutex<Published>,
    process: metrics_process::Collector,
    /// Bring gauges up to date.
    updates: Mutex<Vec<GaugeUpdate>>,
}

type GaugeUpdate = Box<dyn Fn() + Send>;

struct Published {
    counters: [Counter; 5],
    quarantined: [Counter; QuarantineReason::ALL.len()],
    waiting: Gauge,
}

impl Registry {
    /// An empty registry with the histograms' buckets set.
    #[must_use]
    pub fn new() -> Self {
        // The only error is an empty list of buckets.
        let builder = PrometheusBuilder::new();
        let builder = [
            ("odograph_commit_rows", &ROW_BUCKETS[..]),
            ("odograph_freshness_seconds", &FRESHNESS_BUCKETS[..]),
            ("odograph_ack_latency_seconds", &LATENCY_BUCKETS[..]),
            ("odograph_journal_sync_duration_seconds", &LATENCY_BUCKETS[..]),
        ]
        .into_iter()
        .fold(builder, |builder, (name, buckets)| {
            builder.set_buckets_for_metric(Matcher::Full(name.into()), buckets).expect("buckets are given")
        });
        let recorder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECOND_BUCKETS)
            .expect("buckets are given")
            .build_recorder();
        let (published, process) = with_local_recorder(&recorder, || {
            gauge!("odograph_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            let counters = [
                counter!("odograph_records_recovered_total"),
                counter!("odograph_records_journaled_total"),
                counter!("odograph_records_committed_total"),
                counter!("odograph_records_duplicate_total"),
                counter!("odograph_records_acknowledged_total"),
            ];
            let process = metrics_process::Collector::default();
            process.describe();
            let quarantined = QuarantineReason::ALL
                .map(|reason| counter!("odograph_records_quarantined_total", "reason" => reason.as_str()));
            (Published { counters, quarantined, waiting: gauge!("odograph_records_waiting") }, process)
        });
        Self { recorder, tally: Arc::default(), published: Mutex::new(published), process, updates: Mutex::default() }
    }

    /// Registers metrics in this registry.
    pub fn register<T>(&self, register: impl FnOnce() -> T) -> T {
        with_local_recorder(&self.recorder as &dyn Recorder, register)
    }

    /// Has `update` bring gauges up to date before each answer.
    pub fn before_each_answer(&self, update: impl Fn() + Send + 'static) {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(update));
    }

    /// Brings gauges up to date, and readiness with them.
    pub fn update_gauges(&self) {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|update| update());
    }

    /// The record counters.
    #[must_use]
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// The Prometheus text. Record counters are taken at one instant, so that their conservation holds in each answer.
    #[must_use]
    pub fn render(&self) -> String {
        // Held over the rendering: a second scrape must not move the counters in between.
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        self.register(|| self.process.collect());
        self.update_gauges();
        let now = self.tally.read();
        let values = [now.recovered, now.journaled, now.committed, now.duplicate, now.acknowledged];
        for (counter, value) in published.counters.iter().zip(values) {
            counter.absolute(value);
        }
        for (counter, value) in published.quarantined.iter().zip(now.quarantined) {
            counter.absolute(value);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 records never wait at once")]
        published.waiting.set(now.waiting as f64);
        self.handle().render()
    }

    /// Moves histogram samples into their buckets. Without it they pile up for as long as nobody scrapes.
    pub fn upkeep(&self) {
        self.update_gauges();
        self.handle().run_upkeep();
    }

    fn handle(&self) -> PrometheusHandle {
        self.recorder.handle()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// Everything else.
const SECOND_BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// A sync takes a tenth of a millisecond or ten, and an answer what the scheduler leaves of it.
const LATENCY_BUCKETS: [f64; 28] = [
    0.000_05, 0.000_1, 0.000_15, 0.000_2, 0.000_3, 0.000_4, 0.000_5, 0.000_7, 0.001, 0.001_5, 0.002, 0.003, 0.004,
    0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0,
];
/// From live traffic to a backlog of a week.
const FRESHNESS_BUCKETS: [f64; 11] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0];
const ROW_BUCKETS: [f64; 10] = [1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0];
