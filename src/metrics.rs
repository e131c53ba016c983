//! Metrics: one struct a component, registered at start and passed in, all there with zero from the beginning.
//!
//! Labels are enums: never an IMEI, an address or an error text. Names are those of the documentation.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Recorder, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use teltonika_codecs::{AvlCodec, MessageCodec, Reason as Refusal};

use crate::gateway::CloseReason;
use crate::store::{CommitWay, ErrorClass, QuarantineReason};

/// The registry of one running service. Not global, so that several can run in one process.
pub struct Registry {
    recorder: PrometheusRecorder,
    tally: Arc<Tally>,
    published: Mutex<Published>,
    process: metrics_process::Collector,
}

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
        let builder =
            [("odograph_commit_rows", &ROW_BUCKETS[..]), ("odograph_freshness_seconds", &FRESHNESS_BUCKETS[..])]
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
        Self { recorder, tally: Arc::default(), published: Mutex::new(published), process }
    }

    /// Registers metrics in this registry.
    pub fn register<T>(&self, register: impl FnOnce() -> T) -> T {
        with_local_recorder(&self.recorder as &dyn Recorder, register)
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
        let now = self.tally.read();
        let values = [0, now.journaled, now.committed, now.duplicate, now.acknowledged];
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

/// Counts of AVL records along the path. At any instant
/// `journaled = committed + duplicate + quarantined + waiting`.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// One reading of a [`Tally`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to the pipeline.
    pub journaled: u64,
    /// Stored as new rows.
    pub committed: u64,
    /// Found stored already.
    pub duplicate: u64,
    /// Put into quarantine, by [`QuarantineReason`].
    pub quarantined: [u64; QuarantineReason::ALL.len()],
    /// In the pipeline.
    pub waiting: u64,
    /// Told "accepted".
    pub acknowledged: u64,
}

impl Tally {
    pub(crate) fn journaled(&self, records: u8) {
        self.change(|counts| {
            counts.journaled += u64::from(records);
            counts.waiting += u64::from(records);
        });
    }

    /// `quarantined` by [`QuarantineReason`].
    pub(crate) fn committed(&self, inserted: u64, duplicates: u64, quarantined: [u64; QuarantineReason::ALL.len()]) {
        let settled = inserted + duplicates + quarantined.iter().sum::<u64>();
        self.change(|counts| {
            counts.committed += inserted;
            counts.duplicate += duplicates;
            for (count, more) in counts.quarantined.iter_mut().zip(quarantined) {
                *count += more;
            }
            debug_assert!(settled <= counts.waiting, "more was committed than was handed over");
            counts.waiting = counts.waiting.saturating_sub(settled);
        });
    }

    pub(crate) fn acknowledged(&self, records: u8) {
        self.change(|counts| counts.acknowledged += u64::from(records));
    }

    /// The counts at one instant.
    #[must_use]
    pub fn read(&self) -> Counts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What the gateway counts.
#[derive(Clone)]
pub struct GatewayMetrics {
    pub(crate) open: Gauge,
    pub(crate) opened: Counter,
    closed: [Counter; CloseReason::ALL.len()],
    pub(crate) logins_accepted: Counter,
    pub(crate) logins_refused: Counter,
    pub(crate) received_bytes: Counter,
    frames_accepted: [Counter; CODEC_LABELS.len()],
    frames_refused: [Counter; Refusal::ALL.len()],
    pub(crate) frames_unstorable: Counter,
    records_received: [Counter; AvlCodec::ALL.len()],
    messages: [Counter; MessageCodec::ALL.len()],
    pub(crate) ack_latency: Histogram,
}

impl GatewayMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.register(|| Self {
            open: gauge!("odograph_connections_open"),
            opened: counter!("odograph_connections_opened_total"),
            closed: CloseReason::ALL.map(|r| counter!("odograph_connections_closed_total", "reason" => r.as_str())),
            logins_accepted: counter!("odograph_logins_total", "result" => "accepted"),
            logins_refused: counter!("odograph_logins_total", "result" => "refused"),
            received_bytes: counter!("odograph_received_bytes_total"),
            frames_accepted: CODEC_LABELS
                .map(|codec| counter!("odograph_frames_total", "codec" => codec, "result" => "accepted")),
            frames_refused: Refusal::ALL
                .map(|r| counter!("odograph_frames_total", "codec" => "unknown", "result" => r.as_str())),
            frames_unstorable: counter!("odograph_frames_total", "codec" => "unknown", "result" => "unstorable"),
            records_received: AvlCodec::ALL.map(|c| counter!("odograph_records_received_total", "codec" => c.name())),
            messages: MessageCodec::ALL.map(|c| counter!("odograph_messages_total", "codec" => c.name())),
            ack_latency: histogram!("odograph_ack_latency_seconds"),
        })
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].increment(1);
    }

    pub(crate) fn refused(&self, reason: Refusal) {
        self.frames_refused[reason as usize].increment(1);
    }

    pub(crate) fn avl_frame(&self, codec: AvlCodec, records: u8) {
        self.frames_accepted[codec as usize].increment(1);
        self.records_received[codec as usize].increment(records.into());
    }

    pub(crate) fn message(&self, codec: MessageCodec) {
        self.frames_accepted[AvlCodec::ALL.len() + codec as usize].increment(1);
        self.messages[codec as usize].increment(1);
    }
}

/// What the drain counts.
pub struct DrainMetrics {
    commit_duration: [Histogram; CommitWay::ALL.len()],
    pub(crate) commit_rows: Histogram,
    pub(crate) freshness: Histogram,
    store_errors: [Counter; ErrorClass::ALL.len()],
    pub(crate) store_retries: Counter,
    pub(crate) store_up: Gauge,
}

impl DrainMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.register(|| Self {
            commit_duration: CommitWay::ALL
                .map(|way| histogram!("odograph_commit_duration_seconds", "way" => way.as_str())),
            commit_rows: histogram!("odograph_commit_rows"),
            freshness: histogram!("odograph_freshness_seconds"),
            store_errors: ErrorClass::ALL.map(|c| counter!("odograph_store_errors_total", "class" => c.as_str())),
            store_retries: counter!("odograph_store_retries_total"),
            store_up: gauge!("odograph_store_up"),
        })
    }

    pub(crate) fn commit_duration(&self, way: CommitWay, duration: Duration) {
        self.commit_duration[way as usize].record(duration);
    }

    pub(crate) fn store_error(&self, class: ErrorClass) {
        self.store_errors[class as usize].increment(1);
    }
}

/// Codec labels in the order of `AvlCodec::ALL`, then `MessageCodec::ALL`.
const CODEC_LABELS: [&str; 7] = ["8", "8E", "16", "12", "13", "14", "15"];
/// From a fast sync to the longest patience of a tracker.
const SECOND_BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// From live traffic to a backlog of a week.
const FRESHNESS_BUCKETS: [f64; 11] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0];
const ROW_BUCKETS: [f64; 10] = [1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_labels_follow_the_codecs() {
        let names = AvlCodec::ALL.map(AvlCodec::name).into_iter().chain(MessageCodec::ALL.map(MessageCodec::name));
        assert!(names.eq(CODEC_LABELS));
    }

    #[test]
    fn everything_is_there_with_zero_from_the_start() {
        let registry = Registry::new();
        let _gateway = GatewayMetrics::new(&registry);
        let _drain = DrainMetrics::new(&registry);
        let text = registry.render();
        for line in [
            "odograph_connections_open 0",
            "odograph_connections_closed_total{reason=\"idle_timeout\"} 0",
            "odograph_frames_total{codec=\"8E\",result=\"accepted\"} 0",
            "odograph_frames_total{codec=\"unknown\",result=\"crc_mismatch\"} 0",
            "odograph_records_committed_total 0",
            "odograph_records_waiting 0",
            "odograph_store_errors_total{class=\"refuses\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
