//! One lane: gathers a batch, commits it until that succeeds, and starts again where the database says. It runs on one thread
//! and is the only user of its store.
//!
//! The invariant: a batch that was offered does not change while its commit is in doubt.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::builder::BatchBuilder;
use super::clock_watch::ClockWatch;
use super::duplicates::DuplicateFilter;
use super::limits::BatchLimits;
use super::source::{BatchLoad, EntrySource, SourceError};
use super::store_health::{LaneReports, SLOW_RETRY, StoreHealth};
use crate::backoff::Backoff;
use crate::health::Reason;
use crate::store::{
    BatchSpan, Checkpoint, CommitOutcome, Committed, QuarantineReason, Reduced, Schema, Store, StoreError,
};
use odograph_journal::unix_now_us;

/// Drives one lane of the drain.
pub struct LaneDriver<S, F> {
    store: S,
    source: F,
    limits: BatchLimits,
    health: StoreHealth,
    clock: ClockWatch,
    builder: BatchBuilder,
    load: BatchLoad,
    /// When the first frame of the batch was taken.
    first_frame_at: Option<Instant>,
    /// The span under which the batch was offered. The batch must not change while its commit is in doubt.
    offered: Option<BatchSpan>,
    /// Maximum frames per batch, lowered while the database refuses larger ones.
    most_frames: usize,
    /// When latest positions, or a checkpoint without rows, are due.
    due: Instant,
    logged_newer_schema: bool,
}

/// Why gathering ended.
enum GatherEnd {
    /// A batch is due.
    Batch,
    /// The journal took a new id, or the checkpoint moved.
    Moved,
    /// Nothing more will come.
    Over,
}

/// How to continue after a commit.
enum NextStep {
    Gather,
    /// Ask the database for the checkpoint.
    Seek,
}

impl<S: Store, F: EntrySource> LaneDriver<S, F> {
    /// A lane from `source` to `store`.
    #[must_use]
    pub fn new(store: S, source: F, limits: BatchLimits, reports: LaneReports) -> Self {
        let health = StoreHealth::new(reports, source.lane().number);
        Self {
            store,
            source,
            limits,
            health,
            clock: ClockWatch::default(),
            builder: BatchBuilder::new(limits.window, DuplicateFilter::new(limits.filter)),
            load: BatchLoad::new(usize::MAX, limits.rows),
            first_frame_at: None,
            offered: None,
            most_frames: usize::MAX,
            due: Instant::now(),
            logged_newer_schema: false,
        }
    }

    /// Runs until everything is committed and nothing more comes (`finish` asks for that), or until `give_up`. What is not
    /// committed then is in the journal, or was never acknowledged. Returns whether everything is committed.
    pub async fn run(mut self, finish: CancellationToken, give_up: CancellationToken) -> bool {
        let ended = tokio::select! {
            biased;
            ended = self.work(&finish) => Some(ended),
            () = give_up.cancelled() => None,
        };
        let complete = matches!(ended, Some(Ok(())));
        if let Some(Err(error)) = ended {
            tracing::error!(
                cause = std::error::Error::source(&error).map(tracing::field::display),
                "the drain ends: {error}"
            );
        }
        let Self { mut store, source, .. } = self;
        // Unanswered frames go first, so that sessions do not wait for the store to close.
        drop(source);
        if complete && !F::IS_REPLAYABLE {
            let _ = timeout(CLOSE_TIMEOUT, store.retire()).await;
        }
        let _ = timeout(CLOSE_TIMEOUT, store.close()).await;
        complete
    }

    async fn work(&mut self, finish: &CancellationToken) -> Result<(), SourceError> {
        loop {
            self.seek().await?;
            loop {
                let next = match self.gather(finish).await? {
                    GatherEnd::Over => return Ok(()),
                    GatherEnd::Moved => NextStep::Seek,
                    GatherEnd::Batch => self.commit().await?,
                };
                if matches!(next, NextStep::Seek) {
                    self.abandon_batch()?;
                    break;
                }
            }
        }
    }

    /// Waits until the schema is writable and the lane is ours, then moves the source to the checkpoint. The database may be
    /// down at the start, and outdated when it comes.
    async fn seek(&mut self) -> Result<(), SourceError> {
        let mut backoff = Backoff::starting_at(FIRST_RETRY);
        while !self.schema_is_writable(&mut backoff).await {}
        loop {
            let lane = self.source.lane();
            self.store.assign(lane);
            match self.store.open_lane().await {
                Ok(at) => {
                    self.health.lane_is_held(false);
                    if self.source.seek(lane, at, &mut self.builder)?.is_some() {
                        self.health.store_is_up();
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.health.lane_is_held(error.lane_is_held());
                    self.health.wait_after(&error, &mut backoff).await;
                }
            }
        }
    }

    /// Inspects the schema. Returns false, after a pause, if it is not writable.
    async fn schema_is_writable(&mut self, backoff: &mut Backoff) -> bool {
        match self.store.schema().await {
            Ok(Schema::Outdated) => {
                self.health.store_is_up();
                self.health.set(Reason::SchemaOutdated, true);
                tracing::error!("the database lacks migrations: run `odograph migrate`; nothing is written until then");
                sleep(SLOW_RETRY).await;
                false
            }
            Ok(schema) => {
                if schema == Schema::Newer && !std::mem::replace(&mut self.logged_newer_schema, true) {
                    tracing::warn!("the database has migrations that this version does not know");
                }
                self.health.set(Reason::SchemaOutdated, false);
                self.health.store_is_up();
                true
            }
            Err(error) => {
                self.health.wait_after(&error, backoff).await;
                false
            }
        }
    }

    /// Gathers until a batch is due.
    async fn gather(&mut self, finish: &CancellationToken) -> Result<GatherEnd, SourceError> {
        let mut probed_at = Instant::now();
        loop {
            if !self.source.is_current() {
                return Ok(GatherEnd::Moved);
            }
            let finishing = finish.is_cancelled();
            if self.clock.must_wait(&mut self.store, &mut self.source, &mut self.health).await {
                if finishing {
                    return Ok(GatherEnd::Over);
                }
                continue;
            }
            self.source.fill(&mut self.builder, &mut self.load)?;
            if self.clock.was_set(&self.source) {
                self.abandon_batch()?;
                continue;
            }
            let now = Instant::now();
            let linger = (self.load.frames > 0).then(|| *self.first_frame_at.get_or_insert(now) + self.limits.linger);
            // A batch is due when it is full, when its first frame has lingered, or when a checkpoint without rows is due: entries
            // of other lanes were passed, or latest positions are unwritten (or were none, because their rows were refused).
            let (from, to) = self.source.span();
            let unwritten = self.builder.has_latest() || self.source.checkpoint().latest < from.position;
            if finishing || self.source.is_pressed(from) {
                self.due = now;
            }
            let due = (F::IS_REPLAYABLE && (from != to || unwritten)).then_some(self.due);
            let reached = |at: Option<Instant>| at.is_some_and(|at| finishing || now >= at);
            if self.load.is_full() || reached(linger) || reached(due) {
                return Ok(GatherEnd::Batch);
            }
            if self.source.is_over() && (finishing || !F::IS_REPLAYABLE) {
                return Ok(GatherEnd::Over);
            }
            let probe = probed_at + PROBE_EVERY;
            let until = [linger, due].into_iter().flatten().fold(probe, Instant::min);
            // A batch that lingers is filled once at the end: new entries wait in the journal meanwhile, and waking up for each
            // sync would take a core from the sessions.
            let lingers = F::IS_REPLAYABLE && linger.is_some();
            tokio::select! {
                biased;
                () = self.source.more(), if !lingers => {}
                () = finish.cancelled(), if !finishing => {}
                () = sleep_until(until) => {
                    // Idle for a while: check the database, so that readiness is true.
                    if Instant::now() >= probe {
                        if self.load.frames == 0 && !self.checkpoint_is_unchanged().await? {
                            return Ok(GatherEnd::Moved);
                        }
                        probed_at = Instant::now();
                    }
                }
            }
        }
    }

    /// Compares our checkpoint with the database's. On an idle lane this is the only way to notice that the database was
    /// restored.
    async fn checkpoint_is_unchanged(&mut self) -> Result<bool, SourceError> {
        let mut backoff = Backoff::starting_at(FIRST_RETRY);
        while !self.schema_is_writable(&mut backoff).await {}
        match self.store.open_lane().await {
            Ok(at) if at == self.source.checkpoint() => {
                self.health.lane_is_held(false);
                self.source.checkpoint_confirmed()?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) => {
                self.health.lane_is_held(error.lane_is_held());
                self.health.wait_after(&error, &mut backoff).await;
                Ok(true)
            }
        }
    }

    /// Commits the batch, however long it takes. A batch that the database refuses while it answers is divided.
    async fn commit(&mut self) -> Result<NextStep, SourceError> {
        let (mut backoff, mut refusals) = (Backoff::starting_at(FIRST_RETRY), 0);
        loop {
            let error = match self.offer().await {
                Ok(CommitOutcome::Committed(committed)) => {
                    self.finish_batch(&committed)?;
                    return Ok(NextStep::Gather);
                }
                Ok(CommitOutcome::WentBack(_)) => {
                    if !F::IS_REPLAYABLE {
                        tracing::warn!("the database was restored: acknowledged records that it lost are gone");
                    }
                    sleep(SHORT_PAUSE).await;
                    return Ok(NextStep::Seek);
                }
                Ok(CommitOutcome::Fenced) => {
                    tracing::error!(lane = ?self.source.lane(), "another process writes under this lane's id in ingest_checkpoints");
                    self.health.set(Reason::JournalFenced, true);
                    self.source.fenced();
                    sleep(SLOW_RETRY).await;
                    return Ok(NextStep::Seek);
                }
                Err(error) => error,
            };
            let metrics = &self.health.reports.metrics;
            metrics.store_retries.increment(1);
            if self.source.is_second_try() && !error.in_doubt() {
                // It fails again: the others have their turn.
                metrics.store_error(error.class);
                self.abandon_batch()?;
                return Ok(NextStep::Gather);
            }
            let dividing = self.most_frames != usize::MAX;
            if dividing && !error.in_doubt() && self.load.frames > 1 {
                // The pauses were made before; now the frame has to be found.
                metrics.store_error(error.class);
                sleep(SHORT_PAUSE).await;
            } else {
                self.health.wait_after(&error, &mut backoff).await;
            }
            // A database that answers and refuses a batch may take its parts: frames with a record for every day of a year need
            // more locks than it has, and all others must not wait for them. A batch in doubt stays as it is.
            let answers = matches!(self.store.schema().await, Ok(Schema::Current | Schema::Newer));
            refusals = if answers { refusals + 1 } else { 0 };
            let enough = if dividing { 1 } else { DIVIDE_AFTER };
            if refusals >= enough && !error.in_doubt() && self.divide(&error) {
                self.abandon_batch()?;
                return Ok(NextStep::Gather);
            }
        }
    }

    /// Halves the next batch, or sets its only frame aside, which only a source without a journal can. Returns whether it did.
    fn divide(&mut self, error: &StoreError) -> bool {
        if self.load.frames > 1 {
            self.most_frames = self.load.frames / 2;
            return true;
        }
        let aside = self.load.frames == 1 && self.source.set_aside();
        if aside {
            tracing::error!(
                class = %error.class, error = %error, cause = %error.source,
                "the database refuses a frame even alone; others go on, and its tracker gets no answer"
            );
        }
        aside
    }

    /// Offers the batch to the store: as it was offered before, or for the first time.
    async fn offer(&mut self) -> Result<CommitOutcome, StoreError> {
        let span = match self.offered {
            Some(span) => span,
            None => self.complete_batch(),
        };
        self.offered = Some(span);
        let started = Instant::now();
        let outcome = self.store.commit(self.builder.batch(), &span).await?;
        if let CommitOutcome::Committed(committed) = &outcome {
            self.health.reports.metrics.commit_duration(committed.path(), started.elapsed());
        }
        self.health.set(Reason::JournalFenced, false);
        self.health.store_is_up();
        Ok(outcome)
    }

    /// Completes the batch. Latest positions are added once a second if a crash could not lose them for good.
    fn complete_batch(&mut self) -> BatchSpan {
        let (from, to) = self.source.span();
        if !F::IS_REPLAYABLE || Instant::now() >= self.due || self.source.is_pressed(to) {
            self.builder.add_latest();
        }
        let written = self.builder.writes_latest() || !self.builder.has_latest();
        let latest = if written { to.position } else { self.source.checkpoint().latest };
        BatchSpan { from, to: Checkpoint { mark: to, latest } }
    }

    /// Counts a committed batch, releases its entries, and starts the next one.
    fn finish_batch(&mut self, committed: &Committed) -> Result<(), SourceError> {
        let Some(BatchSpan { to, .. }) = self.offered else { return Ok(()) };
        let LaneReports { metrics, tally, .. } = &self.health.reports;
        metrics.batch_committed(self.builder.ahead(), self.builder.batch(), committed);
        let mut quarantined = self.builder.quarantined();
        quarantined[QuarantineReason::Refused as usize] += committed.refused().len() as u64;
        let reduced = committed.reduced();
        if reduced != Reduced::default() {
            tracing::error!(
                partly_written = reduced.partly, left_out = reduced.left_out, before = %to.mark.position,
                "the database refuses messages or quarantined records; the journal has their bytes for as long as it keeps them"
            );
        }
        metrics.freshness(self.builder.newest_ms(), unix_now_us() / 1_000);
        tally.committed(committed.inserted(), committed.duplicates(), quarantined);
        self.builder.committed(committed);
        if to.latest == to.mark.position {
            self.due = Instant::now() + LATEST_EVERY;
        }
        self.most_frames = grown(self.most_frames);
        self.source.committed(to, committed)?;
        self.start_batch();
        Ok(())
    }

    /// Gives the batch up; its entries are read again.
    fn abandon_batch(&mut self) -> Result<(), SourceError> {
        self.builder.abandon();
        self.start_batch();
        self.source.abandon()
    }

    fn start_batch(&mut self) {
        self.load = BatchLoad::new(self.most_frames, self.limits.rows);
        (self.first_frame_at, self.offered) = (None, None);
    }
}

/// Doubles the limit, and soon removes it.
const fn grown(frames: usize) -> usize {
    if frames >= MANY_FRAMES { usize::MAX } else { frames * 2 }
}

const SHORT_PAUSE: Duration = Duration::from_millis(100);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures in a row of a batch, with a database that answers, before the batch is divided. One is ordinary after an outage.
const DIVIDE_AFTER: u32 = 2;
const MANY_FRAMES: usize = 1 << 16;
/// Latest positions in every batch would halve the rate of a large fleet.
const LATEST_EVERY: Duration = Duration::from_secs(1);
