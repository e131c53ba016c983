//! Metrics of the drain and its store. All exist with zero from the start.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::metrics::Registry;
use crate::store::{Batch, Committed, ErrorClass, WritePath};

/// Counters of commits and of the store.
#[derive(Clone)]
pub struct DrainMetrics {
    commit_duration: [Histogram; WritePath::ALL.len()],
    commit_rows: Histogram,
    freshness: Histogram,
    store_errors: [Counter; ErrorClass::ALL.len()],
    /// Records and whole frames that went to quarantine. A frame without records moves no record counter.
    quarantine_entries: Counter,
    quarantine_capped: Counter,
    partly_written: Counter,
    left_out: Counter,
    clock_ahead: Counter,
    pub(super) store_retries: Counter,
    pub(super) store_up: Gauge,
}

impl DrainMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.register(|| Self {
            commit_duration: WritePath::ALL
                .map(|way| histogram!("odograph_commit_duration_seconds", "way" => way.as_str())),
            commit_rows: histogram!("odograph_commit_rows"),
            freshness: histogram!("odograph_freshness_seconds"),
            store_errors: ErrorClass::ALL.map(|c| counter!("odograph_store_errors_total", "class" => c.as_str())),
            quarantine_entries: counter!("odograph_quarantine_entries_total"),
            quarantine_capped: counter!("odograph_quarantine_capped_total"),
            partly_written: counter!("odograph_entries_reduced_total", "result" => "partly_written"),
            left_out: counter!("odograph_entries_reduced_total", "result" => "left_out"),
            clock_ahead: counter!("odograph_records_clock_ahead_total"),
            store_retries: counter!("odograph_store_retries_total"),
            store_up: gauge!("odograph_store_up"),
        })
    }

    pub(super) fn commit_duration(&self, way: WritePath, duration: Duration) {
        self.commit_duration[way as usize].record(duration);
    }

    /// Counts what became of a batch, besides its records.
    pub(super) fn batch_committed(&self, ahead: u64, batch: &Batch, committed: &Committed) {
        self.clock_ahead.increment(ahead);
        if batch.offered() > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a histogram sample is a float")]
            self.commit_rows.record(batch.offered() as f64);
        }
        let quarantined = batch.quarantined.len().saturating_add(committed.refused().len());
        self.quarantine_entries.increment(u64::try_from(quarantined).unwrap_or(u64::MAX));
        self.quarantine_capped.increment(committed.capped());
        let reduced = committed.reduced();
        self.partly_written.increment(reduced.partly);
        self.left_out.increment(reduced.left_out);
    }

    /// Records how old the newest record of each device is at its commit. Times in milliseconds of Unix time.
    pub(super) fn freshness(&self, newest_ms: impl Iterator<Item = i64>, now_ms: i64) {
        for newest_ms in newest_ms {
            let age_ms = u64::try_from(now_ms.saturating_sub(newest_ms)).unwrap_or(0);
            self.freshness.record(Duration::from_millis(age_ms));
        }
    }

    pub(super) fn store_error(&self, class: ErrorClass) {
        self.store_errors[class as usize].increment(1);
    }
}
