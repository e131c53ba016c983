//! Metrics of the flags. All exist with zero from the start.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::event::Fault;
use crate::metrics::Registry;

/// The result of an entry of the stream; also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlagResult {
    /// Positions follow it now.
    Applied,
    /// This change of the flag, or a later one, was applied before.
    Stale,
    /// It was pending and is gone from the stream.
    Gone,
    /// It cannot be read, or the database refuses it; the dead-letter stream has it.
    Dead,
    /// The ledger has it, and the database refuses to change positions for it. It is tried again.
    SetAside,
}

impl FlagResult {
    /// Every result.
    pub const ALL: [Self; 5] = [Self::Applied, Self::Stale, Self::Gone, Self::Dead, Self::SetAside];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Stale => "stale",
            Self::Gone => "gone",
            Self::Dead => "dead_letter",
            Self::SetAside => "set_aside",
        }
    }
}

/// Metrics of consumer, publisher, reconciler and lag measurement.
#[derive(Clone)]
pub struct FlagMetrics {
    events: [Counter; FlagResult::ALL.len()],
    faults: [Counter; Fault::ALL.len()],
    apply_latency: Histogram,
    pub(super) retries: Counter,
    pub(super) lag_entries: Gauge,
    pub(super) pending: Gauge,
    pub(super) oldest: Gauge,
    pub(super) reconciled: Counter,
    pub(super) corrections_told: Counter,
    pub(super) corrections_dropped: Counter,
    pub(super) redis_up: Gauge,
    pub(super) stuck: Gauge,
}

impl FlagMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.register(|| Self {
            events: FlagResult::ALL.map(|result| counter!("odograph_flag_events_total", "result" => result.as_str())),
            faults: Fault::ALL.map(|fault| counter!("odograph_flag_faults_total", "reason" => fault.as_str())),
            apply_latency: histogram!("odograph_flag_apply_latency_seconds"),
            retries: counter!("odograph_flag_retries_total"),
            lag_entries: gauge!("odograph_flag_stream_lag_entries"),
            pending: gauge!("odograph_flag_stream_pending"),
            oldest: gauge!("odograph_flag_stream_oldest_seconds"),
            reconciled: counter!("odograph_flag_reconciled_total"),
            corrections_told: counter!("odograph_flag_corrections_total", "result" => "told"),
            corrections_dropped: counter!("odograph_flag_corrections_total", "result" => "dropped"),
            redis_up: gauge!("odograph_redis_up"),
            stuck: gauge!("odograph_flags_stuck"),
        })
    }

    pub(super) fn event(&self, result: FlagResult, entries: u64) {
        self.events[result as usize].increment(entries);
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.faults[fault as usize].increment(1);
        self.event(FlagResult::Dead, 1);
    }

    /// Records the time from the entry's id to the commit.
    pub(super) fn applied_after(&self, latency: Duration) {
        self.apply_latency.record(latency);
    }
}
