//! Retention on a timer: drops what has grown too old, hourly. A failure is logged and counted, and the next hour tries
//! again; nothing else waits for it.

use std::time::Duration;

use metrics::{Counter, counter};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::metrics::Registry;
use crate::store::{DatabaseUrl, Retained, Retention, retain};

/// What retention counts.
pub struct RetentionMetrics {
    chunks: Counter,
    positions: Counter,
    quarantined: Counter,
    failures: Counter,
}

impl RetentionMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.register(|| Self {
            chunks: counter!("odograph_retention_expired_total", "what" => "chunks"),
            positions: counter!("odograph_retention_expired_total", "what" => "positions"),
            quarantined: counter!("odograph_retention_expired_total", "what" => "quarantined_records"),
            failures: counter!("odograph_retention_failures_total"),
        })
    }

    fn expired(&self, retained: Retained) {
        self.chunks.increment(retained.chunks);
        self.positions.increment(retained.positions);
        self.quarantined.increment(retained.quarantined);
    }
}

/// Runs until it is dropped, which may be at any moment: every step is a transaction of its own.
pub async fn run(url: DatabaseUrl, retention: Retention, metrics: RetentionMetrics) {
    if retention.keeps_all() {
        return;
    }
    let mut hourly = interval_at(Instant::now() + FIRST, EVERY);
    hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        hourly.tick().await;
        match retain(&url, &retention).await {
            Ok(retained) if retained.is_empty() => {}
            Ok(retained) => {
                metrics.expired(retained);
                let Retained { chunks, positions, quarantined } = retained;
                tracing::info!(chunks, positions, quarantined, "what was older than it is kept is gone");
            }
            Err(wrong) => {
                metrics.failures.increment(1);
                tracing::warn!(cause = %wrong.source, "retention failed and is tried again in an hour: {wrong}");
            }
        }
    }
}

/// Soon enough to notice a mistake in the setting, and not in the middle of the start.
const FIRST: Duration = Duration::from_mins(1);
const EVERY: Duration = Duration::from_hours(1);
