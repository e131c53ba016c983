//! One lane: gathers a batch, has it committed, and begins again where the database says. One thread; the only user of its
//! store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Batching;
use super::builder::BatchBuilder;
use super::feed::{Feed, FeedError, Load};
use super::seen::SeenKeys;
use crate::health::{Health, Reason};
use crate::metrics::{DrainMetrics, Tally};
use crate::store::{BatchSpan, ErrorClass, Schema, Store, StoreError};

/// What a lane reports to.
#[derive(Clone)]
pub struct Surroundings {
    /// Counters of the drain.
    pub metrics: DrainMetrics,
    /// Counts of records.
    pub tally: Arc<Tally>,
    /// Readiness.
    pub health: Arc<Health>,
}

/// A lane of the drain.
pub struct Drain<S, F> {
    pub(super) store: S,
    pub(super) feed: F,
    pub(super) batching: Batching,
    pub(super) around: Surroundings,
    pub(super) builder: BatchBuilder,
    pub(super) load: Load,
    /// When the first frame of the batch was taken.
    pub(super) begun: Option<Instant>,
    /// The batch was offered as it is; it must not change while its commit is in doubt.
    pub(super) offered: Option<BatchSpan>,
    /// Most frames in a batch, lowered while the database does not take larger ones.
    pub(super) most_frames: usize,
    /// When newest positions, or a place without rows, are to be written.
    pub(super) due: Instant,
    said_newer: bool,
    held_since: Option<Instant>,
}

/// How gathering ended.
enum Gathered {
    Batch,
    /// The journal has a new id, or the lane stands elsewhere.
    Moved,
    /// Nothing more will come.
    Over,
}

/// How to go on after a commit.
pub(super) enum Next {
    Gather,
    /// Ask the database where the lane stands.
    Begin,
}

impl<S: Store, F: Feed> Drain<S, F> {
    /// A lane from `feed` into `store`.
    #[must_use]
    pub fn new(store: S, feed: F, batching: Batching, around: Surroundings) -> Self {
        Self {
            store,
            feed,
            batching,
            around,
            builder: BatchBuilder::new(batching.window, SeenKeys::new(batching.remembered)),
            load: Load::new(usize::MAX, batching.rows),
            begun: None,
            offered: None,
            most_frames: usize::MAX,
            due: Instant::now(),
            said_newer: false,
            held_since: None,
        }
    }

    /// Runs until nothing more comes, which it may ask for by `finish`, and all is committed; or until `give_up`. What is
    /// not committed then is in the journal, or was never acknowledged. Gives whether all is committed.
    pub async fn run(mut self, finish: CancellationToken, give_up: CancellationToken) -> bool {
        let ended = tokio::select! {
            biased;
            ended = self.work(&finish) => Some(ended),
            () = give_up.cancelled() => None,
        };
        let whole = matches!(ended, Some(Ok(())));
        if let Some(Err(wrong)) = ended {
            tracing::error!(
                cause = std::error::Error::source(&wrong).map(tracing::field::display),
                "the drain ends: {wrong}"
            );
        }
        let Self { mut store, feed, .. } = self;
        // Unanswered frames go first, so that sessions do not wait for the store to close.
        drop(feed);
        if whole && !F::LASTS {
            let _ = timeout(CLOSE_PATIENCE, store.retire()).await;
        }
        let _ = timeout(CLOSE_PATIENCE, store.close()).await;
        whole
    }

    async fn work(&mut self, finish: &CancellationToken) -> Result<(), FeedError> {
        loop {
            self.establish().await?;
            loop {
                let next = match self.gather(finish).await? {
                    Gathered::Over => return Ok(()),
                    Gathered::Moved => Next::Begin,
                    Gathered::Batch => self.commit().await?,
                };
                if matches!(next, Next::Begin) {
                    self.abandon()?;
                    break;
                }
            }
        }
    }

    /// Waits until the schema can be written to and the lane is ours, and goes to where it stands. The database may be away
    /// at start, and older when it comes.
    async fn establish(&mut self) -> Result<(), FeedError> {
        let mut failures = 0;
        while !self.schema(&mut failures).await {}
        loop {
            let lane = self.feed.lane();
            self.store.assign(lane);
            match self.store.open_lane().await {
                Ok(at) => {
                    self.held(false);
                    if self.feed.begin(lane, at, &mut self.builder)?.is_some() {
                        self.up();
                        return Ok(());
                    }
                }
                Err(wrong) => {
                    self.held(wrong.lane_is_held());
                    self.wait_after(&wrong, &mut failures).await;
                }
            }
        }
    }

    /// Looks at the schema; false after waiting, where it cannot be written to.
    async fn schema(&mut self, failures: &mut u32) -> bool {
        match self.store.schema().await {
            Ok(Schema::Outdated) => {
                self.up();
                self.reason(Reason::SchemaOutdated, true);
                tracing::error!("the database lacks migrations: run `odograph migrate`; nothing is written until then");
                sleep(SLOW_RETRY).await;
                false
            }
            Ok(schema) => {
                if schema == Schema::Newer && !std::mem::replace(&mut self.said_newer, true) {
                    tracing::warn!("the database has migrations that this version does not know");
                }
                self.reason(Reason::SchemaOutdated, false);
                self.up();
                true
            }
            Err(wrong) => {
                self.wait_after(&wrong, failures).await;
                false
            }
        }
    }

    /// Gathers until a batch is due.
    async fn gather(&mut self, finish: &CancellationToken) -> Result<Gathered, FeedError> {
        let mut looked = Instant::now();
        loop {
            if !self.feed.is_current() {
                return Ok(Gathered::Moved);
            }
            let finishing = finish.is_cancelled();
            if self.feed.clock_is_wrong() {
                if finishing {
                    return Ok(Gathered::Over);
                }
                sleep(CLOCK_RETRY).await;
                continue;
            }
            self.feed.fill(&mut self.builder, &mut self.load)?;
            let now = Instant::now();
            let linger = (self.load.frames > 0).then(|| *self.begun.get_or_insert(now) + self.batching.linger);
            // Foreign entries were passed, or newest positions are not written, or there turned out to be none: the database refused
            // their rows.
            let (from, to) = self.feed.span();
            let unwritten = self.builder.has_newest() || self.feed.stands().latest < from.position;
            if finishing || self.feed.is_pressed(from) {
                self.due = now;
            }
            let due = (F::LASTS && (from != to || unwritten)).then_some(self.due);
            let reached = |at: Option<Instant>| at.is_some_and(|at| finishing || now >= at);
            if self.load.is_full() || reached(linger) || reached(due) {
                return Ok(Gathered::Batch);
            }
            if self.feed.is_over() && (finishing || !F::LASTS) {
                return Ok(Gathered::Over);
            }
            let probe = looked + PROBE_EVERY;
            let until = [linger, due].into_iter().flatten().fold(probe, Instant::min);
            // A batch that gathers is filled once at the end: what comes meanwhile lies in the journal, and waking up for each
            // sync would cost the sessions their core.
            let gathers = F::LASTS && linger.is_some();
            tokio::select! {
                biased;
                () = self.feed.more(), if !gathers => {}
                () = finish.cancelled(), if !finishing => {}
                () = sleep_until(until) => {
                    // Nothing to do for a while: look whether the database is still there, so that readiness tells the truth.
                    if Instant::now() >= probe {
                        if self.load.frames == 0 && !self.still_stands().await? {
                            return Ok(Gathered::Moved);
                        }
                        looked = Instant::now();
                    }
                }
            }
        }
    }

    /// Whether the database says of the lane what we think. Where nothing comes that would be committed, nothing else shows that it
    /// went back.
    async fn still_stands(&mut self) -> Result<bool, FeedError> {
        let mut failures = 0;
        while !self.schema(&mut failures).await {}
        match self.store.open_lane().await {
            Ok(at) if at == self.feed.stands() => {
                self.held(false);
                self.feed.confirmed()?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(wrong) => {
                self.held(wrong.lane_is_held());
                self.wait_after(&wrong, &mut failures).await;
                Ok(true)
            }
        }
    }

    /// Begins the batch anew.
    pub(super) fn abandon(&mut self) -> Result<(), FeedError> {
        self.builder.abandon();
        self.begin_batch();
        self.feed.abandon()
    }

    pub(super) fn begin_batch(&mut self) {
        self.load = Load::new(self.most_frames, self.batching.rows);
        (self.begun, self.offered) = (None, None);
    }

    fn held(&mut self, held: bool) {
        if !held {
            self.held_since = None;
        }
        let since = held.then(|| *self.held_since.get_or_insert_with(Instant::now));
        self.reason(Reason::JournalFenced, since.is_some_and(|since| since.elapsed() > HELD_AFTER));
    }

    pub(super) fn reason(&self, reason: Reason, holds: bool) {
        self.around.health.set(reason, self.feed.lane().number, holds);
    }

    pub(super) fn up(&self) {
        self.reason(Reason::StoreDown, false);
        self.reason(Reason::StoreRefuses, false);
        let health = &self.around.health;
        let down = health.holds(Reason::StoreDown) || health.holds(Reason::StoreRefuses);
        self.around.metrics.store_up.set(if down { 0.0 } else { 1.0 });
    }

    /// Reports an error and waits: briefly and longer each time where it passes, slowly where the operator must act.
    pub(super) async fn wait_after(&self, wrong: &StoreError, failures: &mut u32) {
        self.around.metrics.store_up.set(0.0);
        self.around.metrics.store_error(wrong.class);
        let pause = match wrong.class {
            ErrorClass::Unavailable => back_off(*failures),
            ErrorClass::Refuses => SLOW_RETRY,
        };
        self.reason(Reason::StoreDown, wrong.class == ErrorClass::Unavailable);
        self.reason(Reason::StoreRefuses, wrong.class == ErrorClass::Refuses);
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

pub(super) const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// A refusal does not pass by itself.
pub(super) const SLOW_RETRY: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const CLOCK_RETRY: Duration = Duration::from_millis(500);
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// A connection that was cut off holds its lane until the server notices, which it does sooner.
const HELD_AFTER: Duration = Duration::from_secs(45);
