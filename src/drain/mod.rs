//! The drain: takes frames, decodes them, builds rows, and commits batch by batch. One thread; the only user of the store.
//!
//! While a batch is being committed further frames queue up, so batches grow with the backlog by themselves. Errors are
//! met by committing the same batch again, for as long as it takes: nothing is dropped.

mod rows;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub use rows::RowBuilder;

use crate::health::{Health, Reason};
use crate::metrics::{DrainMetrics, Tally};
use crate::receipt::Submission;
use crate::store::{Batch, Committed, ErrorClass, Schema, Store, StoreError};

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Most rows in a batch; the frame that reaches it is still taken whole.
    pub rows: usize,
    /// How long the first frame of a batch waits for others.
    pub linger: Duration,
}

/// The drain and what it reports to.
pub struct Drain<S> {
    store: S,
    inbox: mpsc::Receiver<Submission>,
    batching: Batching,
    metrics: DrainMetrics,
    tally: Arc<Tally>,
    health: Arc<Health>,
    builder: RowBuilder,
    batch: Batch,
    frames: Vec<Submission>,
    batch_bytes: usize,
    /// Device time of each frame's newest record, for the freshness histogram.
    newest_ms: Vec<i64>,
    said_newer: bool,
}

impl<S: Store> Drain<S> {
    /// A drain from `inbox` into `store`.
    pub fn new(
        store: S,
        inbox: mpsc::Receiver<Submission>,
        batching: Batching,
        metrics: DrainMetrics,
        tally: Arc<Tally>,
        health: Arc<Health>,
    ) -> Self {
        let (builder, batch) = (RowBuilder::default(), Batch::default());
        Self {
            store,
            inbox,
            batching,
            metrics,
            tally,
            health,
            builder,
            batch,
            frames: Vec::new(),
            batch_bytes: 0,
            newest_ms: Vec::new(),
            said_newer: false,
        }
    }

    /// Runs until every sender is gone and all is committed, or until `give_up`. What is not committed then was never
    /// acknowledged.
    pub async fn run(mut self, give_up: CancellationToken) {
        let whole = async {
            self.establish().await;
            while self.gather().await {
                self.commit().await;
            }
        };
        let ended = tokio::select! {
            () = whole => true,
            () = give_up.cancelled() => false,
        };
        if !ended && self.tally.read().waiting > 0 {
            tracing::warn!(
                records = self.tally.read().waiting,
                "stopping with records that are not committed; they were not acknowledged, so the trackers keep them"
            );
        }
        // Unanswered frames go first, so that sessions do not wait for the store to close.
        self.frames.clear();
        drop(self.inbox);
        let _ = timeout(CLOSE_PATIENCE, self.store.close()).await;
    }

    /// Waits until the schema can be written to. The database may be away at start, and older when it comes.
    async fn establish(&mut self) {
        let mut failures = 0;
        loop {
            match self.store.schema().await {
                Ok(Schema::Outdated) => {
                    self.up();
                    self.health.raise(Reason::SchemaOutdated);
                    tracing::error!(
                        "the database lacks migrations: run `odograph migrate`; nothing is acknowledged until then"
                    );
                    sleep(SLOW_RETRY).await;
                }
                Ok(schema) => {
                    if schema == Schema::Newer && !std::mem::replace(&mut self.said_newer, true) {
                        tracing::warn!("the database has migrations that this version does not know");
                    }
                    self.health.clear(Reason::SchemaOutdated);
                    self.up();
                    return;
                }
                Err(wrong) => self.wait_after(&wrong, &mut failures).await,
            }
        }
    }

    /// Fills the batch; false when every sender is gone and nothing is left.
    async fn gather(&mut self) -> bool {
        self.empty_batch();
        loop {
            // Nothing to do for a while: look whether the database is still there, so that readiness tells the truth.
            match timeout(PROBE_EVERY, self.inbox.recv()).await {
                Ok(None) => return false,
                Ok(Some(first)) => {
                    self.take(first);
                    break;
                }
                Err(_) => self.establish().await,
            }
        }
        let until = tokio::time::Instant::now() + self.batching.linger;
        while !self.is_full() {
            match timeout_at(until, self.inbox.recv()).await {
                Ok(Some(next)) => self.take(next),
                Ok(None) | Err(_) => break,
            }
        }
        // What queued up meanwhile goes along: batches grow with the backlog.
        while !self.is_full()
            && let Ok(next) = self.inbox.try_recv()
        {
            self.take(next);
        }
        true
    }

    fn empty_batch(&mut self) {
        self.batch.clear();
        self.frames.clear();
        self.newest_ms.clear();
        self.batch_bytes = 0;
    }

    fn is_full(&self) -> bool {
        self.batch.rows().len() >= self.batching.rows || self.batch_bytes >= BATCH_BYTES
    }

    fn take(&mut self, frame: Submission) {
        let had = self.batch.rows().len();
        match self.builder.rows(&frame, &mut self.batch) {
            Ok(()) => {
                self.batch_bytes += frame.data.len();
                self.newest_ms.extend(self.batch.rows().iter().skip(had).map(|row| row.ts_ms).max());
                self.frames.push(frame);
            }
            // The session opened the same bytes; dropping the frame leaves the tracker unanswered, and it resends.
            Err(wrong) => tracing::error!(error = %wrong, "a frame that was accepted cannot be decoded"),
        }
    }

    /// Commits the batch, again and again until it is committed.
    async fn commit(&mut self) {
        let (mut failures, mut though_it_answers) = (0, 0);
        while let Err(wrong) = self.try_commit().await {
            self.metrics.store_retries.increment(1);
            self.wait_after(&wrong, &mut failures).await;
            // A database that answers and will not take a batch may take its parts: a few frames with a record for every
            // day of years need more locks in one transaction than it has. Everybody else must not wait for them.
            let answers = matches!(self.store.schema().await, Ok(Schema::Current | Schema::Newer));
            though_it_answers = if answers { though_it_answers + 1 } else { 0 };
            if though_it_answers >= APART_AFTER {
                self.commit_apart().await;
                if self.frames.is_empty() {
                    return;
                }
            }
        }
    }

    /// Commits each frame on its own, as long as the database answers; those that are left are the batch then.
    async fn commit_apart(&mut self) {
        let mut left = Vec::new();
        let mut answers = true;
        for frame in std::mem::take(&mut self.frames) {
            if !answers {
                left.push(frame);
                continue;
            }
            self.empty_batch();
            self.take(frame);
            if let Err(wrong) = self.try_commit().await {
                self.metrics.store_error(wrong.class);
                tracing::warn!(class = %wrong.class, cause = %wrong.source, "a frame fails on its own; it is tried again");
                left.append(&mut self.frames);
                answers = self.store.schema().await.is_ok();
            }
        }
        self.empty_batch();
        for frame in left {
            self.take(frame);
        }
    }

    /// Commits the batch once, and answers its frames.
    async fn try_commit(&mut self) -> Result<(), StoreError> {
        let begun = Instant::now();
        let committed = self.store.commit(&self.batch).await?;
        self.metrics.commit_duration.record(begun.elapsed());
        self.up();
        self.settle(committed);
        Ok(())
    }

    fn settle(&mut self, committed: Committed) {
        #[expect(clippy::cast_precision_loss, reason = "a histogram sample is a float")]
        self.metrics.commit_rows.record(self.batch.rows().len() as f64);
        let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        for newest_ms in self.newest_ms.drain(..) {
            let age_ms = u64::try_from(now_ms.saturating_sub(newest_ms)).unwrap_or(0);
            self.metrics.freshness.record(Duration::from_millis(age_ms));
        }
        self.tally.committed(committed.inserted(), committed.duplicates());
        for frame in self.frames.drain(..) {
            frame.settle(&committed);
        }
    }

    fn up(&self) {
        self.metrics.store_up.set(1.0);
        self.health.clear(Reason::StoreDown);
        self.health.clear(Reason::StoreRefuses);
    }

    /// Reports an error and waits: briefly and longer each time where it passes, slowly where the operator must act.
    async fn wait_after(&self, wrong: &StoreError, failures: &mut u32) {
        self.metrics.store_up.set(0.0);
        self.metrics.store_error(wrong.class);
        let (other, pause) = match wrong.class {
            ErrorClass::Unavailable => (ErrorClass::Refuses, back_off(*failures)),
            ErrorClass::Refuses => (ErrorClass::Unavailable, SLOW_RETRY),
        };
        self.health.raise(Reason::of(wrong.class));
        self.health.clear(Reason::of(other));
        *failures += 1;
        tracing::warn!(class = %wrong.class, error = %wrong, cause = %wrong.source, retry_in = ?pause, "the store failed; nothing is lost");
        sleep(pause).await;
    }
}

/// Capped, and jittered so that gateways do not come back all at once.
fn back_off(failures: u32) -> Duration {
    let most = FIRST_RETRY.saturating_mul(1 << failures.min(6)).min(LAST_RETRY);
    most.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Failures of a batch in a row, with a database that answers, before its frames are tried one by one. One is ordinary:
/// the database came back after an outage.
const APART_AFTER: u32 = 2;
/// Most bytes of frames in a batch, so that frames full of odd elements do not grow it without bound.
const BATCH_BYTES: usize = 32 << 20;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// A refusal does not pass by itself.
const SLOW_RETRY: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
