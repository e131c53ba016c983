//! The drain: takes frames, decodes them, builds rows, and commits batch by batch. One thread; the only user of the store.
//!
//! While a batch is being committed further frames queue up, so batches grow with the backlog by themselves. Errors are
//! met by committing the same batch again, for as long as it takes: nothing is dropped.

mod builder;
mod newest;
mod rows;
mod seen;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub use builder::{BatchBuilder, Frame, TimeWindow};
pub use newest::NewestPositions;
pub use rows::{BuiltRow, NotAsAccepted};
pub use seen::{Seen, SeenKeys, SeenOfDevice, Sizes};

use crate::checkpoint::{Mark, Position};
use crate::health::{Health, Reason};
use crate::metrics::{DrainMetrics, Tally};
use crate::receipt::Submission;
use crate::store::{Checkpoint, Committed, ErrorClass, Outcome, QuarantineReason, Schema, Step, Store, StoreError};

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Most rows in a batch; the frame that reaches it is still taken whole.
    pub rows: usize,
    /// How long the first frame of a batch waits for others.
    pub linger: Duration,
    /// Device times that are believed.
    pub window: TimeWindow,
}

/// The drain and what it reports to.
pub struct Drain<S> {
    store: S,
    inbox: mpsc::Receiver<Submission>,
    batching: Batching,
    metrics: DrainMetrics,
    tally: Arc<Tally>,
    health: Arc<Health>,
    builder: BatchBuilder,
    /// What was taken and is not committed; the first ones are in the batch.
    frames: VecDeque<Submission>,
    in_batch: usize,
    /// Most frames in a batch, lowered while the database does not take larger ones.
    most_frames: usize,
    /// Where the lane stands in the database; `None` until it was asked.
    cursor: Option<Mark>,
    next: u64,
    tag: i64,
    /// Device time of each frame's newest record in the batch, for the freshness histogram.
    newest_ms: Vec<i64>,
    said_newer: bool,
}

/// Another process writes under this drain's id.
struct Fenced;

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
        let builder = BatchBuilder::new(batching.window, SeenKeys::new(Sizes::default()));
        Self {
            store,
            inbox,
            batching,
            metrics,
            tally,
            health,
            builder,
            frames: VecDeque::new(),
            in_batch: 0,
            most_frames: usize::MAX,
            cursor: None,
            next: 0,
            tag: fastrand::i64(1..),
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
                if let Err(Fenced) = self.commit().await {
                    tracing::error!("another process writes under this process's id in ingest_checkpoints");
                    return;
                }
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
        if ended {
            let _ = timeout(CLOSE_PATIENCE, self.store.retire()).await;
        }
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

    /// Takes frames; false when every sender is gone.
    async fn gather(&mut self) -> bool {
        let (mut records, mut bytes) = (0, 0);
        let most_rows = self.batching.rows;
        let mut is_full = |frame: &Submission| {
            records += usize::from(frame.records());
            bytes += frame.data.len();
            records >= most_rows || bytes >= BATCH_BYTES
        };
        let mut full = loop {
            // Nothing to do for a while: look whether the database is still there, so that readiness tells the truth.
            match timeout(PROBE_EVERY, self.inbox.recv()).await {
                Ok(None) => return false,
                Ok(Some(first)) => {
                    let full = is_full(&first);
                    self.frames.push_back(first);
                    break full;
                }
                Err(_) => self.establish().await,
            }
        };
        let until = tokio::time::Instant::now() + self.batching.linger;
        while !full {
            match timeout_at(until, self.inbox.recv()).await {
                Ok(Some(next)) => {
                    full = is_full(&next);
                    self.frames.push_back(next);
                }
                Ok(None) | Err(_) => break,
            }
        }
        // What queued up meanwhile goes along: batches grow with the backlog.
        while !full && let Ok(next) = self.inbox.try_recv() {
            full = is_full(&next);
            self.frames.push_back(next);
        }
        true
    }

    /// Commits what was taken, for as long as it takes.
    async fn commit(&mut self) -> Result<(), Fenced> {
        let (mut failures, mut though_it_answers) = (0, 0);
        while !self.frames.is_empty() {
            match self.offer().await {
                Ok(Outcome::Committed(committed)) => {
                    (failures, though_it_answers) = (0, 0);
                    self.settle(&committed);
                    self.most_frames = self.most_frames.saturating_mul(2);
                }
                Ok(Outcome::WentBack(_)) => {
                    tracing::warn!("the database went back: what it lost was acknowledged and is gone");
                    self.cursor = None;
                    self.abandon();
                }
                Ok(Outcome::Fenced) => return Err(Fenced),
                Err(wrong) => {
                    self.metrics.store_retries.increment(1);
                    self.wait_after(&wrong, &mut failures).await;
                    // A database that answers and will not take a batch may take its parts: a few frames with a record
                    // for every day of a year need more locks in one transaction than it has. Everybody else must not
                    // wait for them. A batch in doubt stays as it is.
                    let answers = matches!(self.store.schema().await, Ok(Schema::Current | Schema::Newer));
                    though_it_answers = if answers { though_it_answers + 1 } else { 0 };
                    if though_it_answers >= APART_AFTER && !wrong.in_doubt() && self.in_batch > 1 {
                        self.most_frames = self.in_batch / 2;
                        self.abandon();
                    }
                }
            }
        }
        Ok(())
    }

    /// Offers a batch of the first frames to the store: the one that it did not take, or a new one.
    async fn offer(&mut self) -> Result<Outcome, StoreError> {
        let from = match self.cursor {
            Some(cursor) => cursor,
            None => self.store.open_lane().await?.mark,
        };
        self.cursor = Some(from);
        self.next = self.next.max(from.position.0);
        if self.in_batch == 0 {
            self.build();
        }
        let to = Mark { position: Position(self.next), tag: self.tag };
        let step = Step { from, to: Checkpoint { mark: to, newest: to.position } };
        let begun = Instant::now();
        let outcome = self.store.commit(self.builder.batch(), &step).await?;
        if let Outcome::Committed(committed) = &outcome {
            self.cursor = Some(to);
            self.metrics.commit_duration(committed.way(), begun.elapsed());
        }
        self.up();
        Ok(outcome)
    }

    fn build(&mut self) {
        while self.in_batch < self.most_frames
            && let Some(frame) = self.frames.get(self.in_batch)
        {
            let position = Position(self.next);
            self.next += 1;
            let opened = self.builder.frame(&Frame {
                imei: frame.imei,
                received_at_us: frame.received_at_us,
                position,
                data: &frame.data,
                records: frame.records(),
            });
            match opened {
                Ok(newest_ms) => {
                    self.newest_ms.extend(newest_ms);
                    self.in_batch += 1;
                }
                // The session opened the same bytes; dropping the frame leaves the tracker unanswered, and it resends.
                Err(wrong) => {
                    tracing::error!(error = %wrong, "a frame that was accepted cannot be decoded");
                    self.frames.remove(self.in_batch);
                }
            }
        }
        // Nothing rebuilds them after a crash without a journal, so they go along every time.
        self.builder.add_newest();
    }

    fn abandon(&mut self) {
        self.builder.abandon();
        self.newest_ms.clear();
        self.in_batch = 0;
    }

    fn settle(&mut self, committed: &Committed) {
        let batch = self.builder.batch();
        #[expect(clippy::cast_precision_loss, reason = "a histogram sample is a float")]
        self.metrics.commit_rows.record(batch.offered() as f64);
        let mut quarantined = [0; QuarantineReason::ALL.len()];
        for record in &batch.quarantined {
            quarantined[record.reason as usize] += 1;
        }
        quarantined[QuarantineReason::Refused as usize] += u64::try_from(committed.refused().len()).unwrap_or(u64::MAX);
        let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        for newest_ms in self.newest_ms.drain(..) {
            let age_ms = u64::try_from(now_ms.saturating_sub(newest_ms)).unwrap_or(0);
            self.metrics.freshness.record(Duration::from_millis(age_ms));
        }
        self.tally.committed(committed.inserted(), committed.duplicates(), quarantined);
        for frame in self.frames.drain(..self.in_batch) {
            frame.settle(committed);
        }
        self.in_batch = 0;
        self.builder.committed(committed);
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
