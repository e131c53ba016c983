//! Metrics of the drain and its store. All exist with zero from the start.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::metrics::Registry;
use crate::store::{ErrorClass, WritePath};

/// Counters of commits and of the store.
#[derive(Clone)]
pub struct DrainMetrics {
    commit_duration: [Histogram; WritePath::ALL.len()],
    pub(super) commit_rows: Histogram,
    pub(super) freshness: Histogram,
    store_errors: [Counter; ErrorClass::ALL.len()],
    /// Records and whole frames that went to quarantine. A frame without records moves no record counter.
    pub(super) quarantine_entries: Counter,
    pub(super) quarantine_capped: Counter,
    pub(super) partly_written: Counter,
    pub(super) left_out: Counter,
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
            store_retries: counter!("odograph_store_retries_total"),
            store_up: gauge!("odograph_store_up"),
        })
    }

    pub(super) fn commit_duration(&self, way: WritePath, duration: Duration) {
        self.commit_duration[way as usize].record(duration);
    }

    pub(super) fn store_error(&self, class: ErrorClass) {
        self.store_errors[class as usize].increment(1);
    }
}
