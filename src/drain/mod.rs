//! The drain: takes frames, decodes them, builds rows, and commits batch by batch. One thread; the only user of the store.
//!
//! While a batch is being committed further frames queue up, so batches grow with the backlog by themselves. Errors are
//! met by committing the same batch again, for as long as it takes: nothing is dropped.

mod builder;
mod commit;
mod newest;
mod rows;
mod seen;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub use builder::{BatchBuilder, Frame, TimeWindow};
pub use newest::NewestPositions;
pub use rows::{BuiltRow, NotAsAccepted};
pub use seen::{Seen, SeenKeys, SeenOfDevice, Sizes};

use crate::checkpoint::Mark;
use crate::health::{Health, Reason};
use crate::metrics::{DrainMetrics, Tally};
use crate::receipt::Submission;
use crate::store::{ErrorClass, Schema, Store, StoreError};

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
    /// Frames that the database does not take even alone, though it answers. Others go on; these are tried now and then.
    aside: VecDeque<Submission>,
    aside_tried: Instant,
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

impl Fenced {
    fn say(_: &Self) {
        tracing::error!("another process writes under this process's id in ingest_checkpoints: stopping");
    }
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
            aside: VecDeque::new(),
            aside_tried: Instant::now(),
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
            loop {
                self.retry_aside().await.inspect_err(Fenced::say)?;
                if !self.gather().await {
                    return Ok::<(), Fenced>(());
                }
                self.commit().await.inspect_err(Fenced::say)?;
            }
        };
        let ended = tokio::select! {
            ended = whole => ended.is_ok(),
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
        self.aside.clear();
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
                Err(_) => {
                    self.establish().await;
                    // What was put aside may be all that there is, and may hold all the room that there is.
                    if !self.aside.is_empty() {
                        return true;
                    }
                }
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

/// Most bytes of frames in a batch, so that frames full of odd elements do not grow it without bound.
const BATCH_BYTES: usize = 32 << 20;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// A refusal does not pass by itself.
const SLOW_RETRY: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
