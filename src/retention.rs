//! Retention on a timer: deletes expired data every hour. A failure is logged and counted, and the next hour tries again.
//! Nothing else waits for it. Nothing is deleted while it is unknown what waits in the journal, or what time it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, counter};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::ingest::drain::{JournalProgress, OldestUnknown, check_clock};
use crate::metrics::Registry;
use crate::store::{DatabaseUrl, Retention, RetentionClock, RetentionReport, StoreError, retain};

/// The counters of retention.
pub struct RetentionMetrics {
    chunks: Counter,
    positions: Counter,
    messages: Counter,
    quarantined: Counter,
    refused: Counter,
    failures: Counter,
}

impl RetentionMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.register(|| Self {
            chunks: counter!("odograph_retention_expired_total", "what" => "chunks"),
            positions: counter!("odograph_retention_expired_total", "what" => "positions"),
            messages: counter!("odograph_retention_expired_total", "what" => "messages"),
            quarantined: counter!("odograph_retention_expired_total", "what" => "quarantined_records"),
            refused: counter!("odograph_retention_refused_total"),
            failures: counter!("odograph_retention_failures_total"),
        })
    }

    fn expired(&self, report: &RetentionReport) {
        self.chunks.increment(u64::try_from(report.chunks.len()).unwrap_or(u64::MAX));
        self.positions.increment(report.positions);
        self.messages.increment(report.messages);
        self.quarantined.increment(report.quarantined);
    }
}

/// What retention needs to know.
#[derive(Clone, Debug)]
pub struct RetentionConfig {
    /// Where to delete.
    pub database_url: DatabaseUrl,
    /// How long data is kept.
    pub ages: Retention,
}

/// Deletes expired data, for one service.
pub struct Retainer {
    config: RetentionConfig,
    draining: Option<Arc<JournalProgress>>,
    metrics: RetentionMetrics,
}

/// Why a run deleted nothing.
#[derive(Debug, thiserror::Error)]
enum RetentionError {
    #[error("nothing is deleted: {0}")]
    OldestUnknown(#[from] OldestUnknown),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Retainer {
    /// `draining` drains this service's journal, if it has one. Journals of other gateways are not considered.
    #[must_use]
    pub fn new(config: RetentionConfig, draining: Option<Arc<JournalProgress>>, metrics: RetentionMetrics) -> Self {
        Self { config, draining, metrics }
    }

    /// Runs until it is dropped, which is safe at any moment: every step is one transaction.
    pub async fn run(self: Arc<Self>) {
        if self.config.ages.keeps_all() {
            return;
        }
        let mut hourly = interval_at(Instant::now() + FIRST_RUN_AFTER, EVERY);
        hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            hourly.tick().await;
            self.once().await;
        }
    }

    /// Runs once, and logs and counts the outcome.
    pub async fn once(&self) {
        match self.attempt().await {
            Ok(report) => self.publish(&report),
            Err(RetentionError::OldestUnknown(error)) => {
                self.metrics.refused.increment(1);
                tracing::warn!("nothing is deleted; retention tries again in an hour: {error}");
            }
            Err(RetentionError::Store(error)) => {
                self.metrics.failures.increment(1);
                tracing::warn!(cause = %error.source, "retention failed and tries again in an hour: {error}");
            }
        }
    }

    async fn attempt(&self) -> Result<RetentionReport, RetentionError> {
        let waiting_since = self.waiting_since().await?;
        let clock = RetentionClock::new(SystemTime::now(), waiting_since);
        Ok(retain(&self.config.database_url, &self.config.ages, &clock).await?)
    }

    /// Receive time of the oldest frame that waits in the journal.
    async fn waiting_since(&self) -> Result<Option<SystemTime>, OldestUnknown> {
        let Some(draining) = self.draining.clone() else {
            // Without a journal, trackers keep the records that are not in the database.
            return check_clock(micros(SystemTime::now()), None)
                .map_or(Ok(None), |problem| Err(OldestUnknown::Clock(problem)));
        };
        let oldest_us = tokio::task::spawn_blocking(move || draining.oldest_waiting_us());
        let oldest_us = oldest_us.await.map_err(|_| OldestUnknown::Beginning)??;
        Ok(oldest_us.map(|us| UNIX_EPOCH + Duration::from_micros(u64::try_from(us).unwrap_or(0))))
    }

    /// Counts and logs what was deleted.
    fn publish(&self, report: &RetentionReport) {
        self.metrics.expired(report);
        let RetentionReport { chunks, positions, messages, quarantined, refused } = report;
        for chunk in chunks.iter().take(CHUNK_LINES) {
            let time = humantime::format_rfc3339_seconds;
            tracing::info!(chunk = chunk.name, from = %time(chunk.from), to = %time(chunk.to), "expired chunk dropped");
        }
        if chunks.len() > CHUNK_LINES {
            tracing::info!("and {} later chunks", chunks.len() - CHUNK_LINES);
        }
        let dropped = u64::from(!chunks.is_empty()) + positions + messages + quarantined > 0;
        if dropped {
            let chunks = chunks.len();
            tracing::info!(chunks, positions, messages, quarantined, "expired data deleted");
        }
        if let Some(refused) = refused {
            self.metrics.refused.increment(1);
            tracing::warn!("some expired data is not deleted: {refused}");
        }
    }
}

fn micros(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

/// Chunks that get a log line each. For others the summary is enough.
const CHUNK_LINES: usize = 50;
/// Soon enough to show a mistake in the setting, but after the start.
const FIRST_RUN_AFTER: Duration = Duration::from_mins(1);
const EVERY: Duration = Duration::from_hours(1);
