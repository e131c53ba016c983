//! Retention on a timer: drops what has grown too old, hourly. A failure is logged and counted, and the next hour tries
//! again; nothing else waits for it. Nothing is dropped while it is not known what waits in the journal, or what time it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, counter};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::ingest::drain::{Draining, NotKnown, judge_clock};
use crate::metrics::Registry;
use crate::store::{DatabaseUrl, Retention, RetentionClock, RetentionReport, StoreError, retain};

/// What retention counts.
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

    fn expired(&self, retained: &RetentionReport) {
        self.chunks.increment(u64::try_from(retained.chunks.len()).unwrap_or(u64::MAX));
        self.positions.increment(retained.positions);
        self.messages.increment(retained.messages);
        self.quarantined.increment(retained.quarantined);
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
    draining: Option<Arc<Draining>>,
    metrics: RetentionMetrics,
}

/// Why a run dropped nothing.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("nothing is dropped: {0}")]
    NotKnown(#[from] NotKnown),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Retainer {
    /// `draining` is what empties this service's journal, if it has one. Journals of other gateways are not looked at.
    #[must_use]
    pub fn new(config: RetentionConfig, draining: Option<Arc<Draining>>, metrics: RetentionMetrics) -> Self {
        Self { config, draining, metrics }
    }

    /// Runs until it is dropped, which may be at any moment: every step is a transaction of its own.
    pub async fn run(self: Arc<Self>) {
        if self.config.ages.keeps_all() {
            return;
        }
        let mut hourly = interval_at(Instant::now() + FIRST, EVERY);
        hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            hourly.tick().await;
            self.once().await;
        }
    }

    /// One run, whose outcome is logged and counted.
    pub async fn once(&self) {
        match self.attempt().await {
            Ok(retained) => self.tell(&retained),
            Err(Failed::NotKnown(wrong)) => {
                self.metrics.refused.increment(1);
                tracing::warn!("nothing is dropped, and retention is tried again in an hour: {wrong}");
            }
            Err(Failed::Store(wrong)) => {
                self.metrics.failures.increment(1);
                tracing::warn!(cause = %wrong.source, "retention failed and is tried again in an hour: {wrong}");
            }
        }
    }

    async fn attempt(&self) -> Result<RetentionReport, Failed> {
        let waiting_since = self.waiting_since().await?;
        let clock = RetentionClock::new(SystemTime::now(), waiting_since);
        Ok(retain(&self.config.database_url, &self.config.ages, &clock).await?)
    }

    /// When the oldest frame that waits in the journal was received.
    async fn waiting_since(&self) -> Result<Option<SystemTime>, NotKnown> {
        let Some(draining) = self.draining.clone() else {
            // Where there is no journal, trackers keep what is not in the database.
            return judge_clock(micros(SystemTime::now()), None).map_or(Ok(None), |wrong| Err(NotKnown::Clock(wrong)));
        };
        let asking = tokio::task::spawn_blocking(move || draining.oldest_waiting_us());
        let oldest_us = asking.await.map_err(|_| NotKnown::Beginning)??;
        Ok(oldest_us.map(|us| UNIX_EPOCH + Duration::from_micros(u64::try_from(us).unwrap_or(0))))
    }

    fn tell(&self, retained: &RetentionReport) {
        self.metrics.expired(retained);
        let RetentionReport { chunks, positions, messages, quarantined, refused } = retained;
        for chunk in chunks.iter().take(LINES) {
            let time = humantime::format_rfc3339_seconds;
            tracing::info!(chunk = chunk.name, from = %time(chunk.from), to = %time(chunk.to), "dropped, as it is older than positions are kept");
        }
        if chunks.len() > LINES {
            tracing::info!("and {} later chunks", chunks.len() - LINES);
        }
        let dropped = u64::from(!chunks.is_empty()) + positions + messages + quarantined > 0;
        if dropped {
            let chunks = chunks.len();
            tracing::info!(chunks, positions, messages, quarantined, "what was older than it is kept is gone");
        }
        if let Some(refused) = refused {
            self.metrics.refused.increment(1);
            tracing::warn!("not all that is old enough is dropped: {refused}");
        }
    }
}

fn micros(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

/// Chunks that are named one by one. After that the summary has to do.
const LINES: usize = 50;
/// Soon enough to notice a mistake in the setting, and not in the middle of the start.
const FIRST: Duration = Duration::from_mins(1);
const EVERY: Duration = Duration::from_hours(1);
