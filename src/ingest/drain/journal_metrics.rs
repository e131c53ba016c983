//! Metrics of the journal, and of how far the drain is behind it. All are zero if there is no journal.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::metrics::Registry;
use odograph_journal::Status;

/// Gauges of the journal's room, and its counters. All zero where there is no journal.
#[derive(Clone)]
pub struct JournalMetrics {
    uncommitted_bytes: Gauge,
    kept_bytes: Gauge,
    max_bytes: Gauge,
    pub(crate) sync_duration: Histogram,
    keep_shortened: Counter,
    damage_skipped_bytes: Counter,
    pub(super) gap_bytes: Counter,
    lag_bytes: Gauge,
    oldest_uncommitted: Gauge,
}

impl JournalMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.register(|| Self {
            uncommitted_bytes: gauge!("odograph_journal_bytes", "state" => "uncommitted"),
            kept_bytes: gauge!("odograph_journal_bytes", "state" => "kept"),
            max_bytes: gauge!("odograph_journal_max_bytes"),
            sync_duration: histogram!("odograph_journal_sync_duration_seconds"),
            keep_shortened: counter!("odograph_journal_keep_shortened_total"),
            damage_skipped_bytes: counter!("odograph_journal_damage_skipped_bytes_total"),
            gap_bytes: counter!("odograph_journal_gap_bytes_total"),
            lag_bytes: gauge!("odograph_drain_lag_bytes"),
            oldest_uncommitted: gauge!("odograph_drain_oldest_uncommitted_seconds"),
        })
    }

    /// Publishes the state of the journal, and how long its oldest uncommitted entry has waited.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; no journal has 2^53 bytes")]
    pub(super) fn show(&self, status: &Status, lag_bytes: u64, oldest: Duration) {
        self.uncommitted_bytes.set(status.uncommitted_bytes as f64);
        self.kept_bytes.set(status.kept_bytes as f64);
        self.max_bytes.set(status.max_bytes as f64);
        self.keep_shortened.absolute(status.keep_shortened);
        self.damage_skipped_bytes.absolute(status.damage_skipped_bytes);
        self.lag_bytes.set(lag_bytes as f64);
        self.oldest_uncommitted.set(oldest.as_secs_f64());
    }
}
