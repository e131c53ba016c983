//! Committing a batch, again and again; in smaller parts where the database answers and does not take it.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::feed::{Feed, FeedError};
use super::lane::{Drain, FIRST_RETRY, Next, SLOW_RETRY};
use crate::health::Reason;
use crate::store::{BatchSpan, Checkpoint, CommitOutcome, Committed, QuarantineReason, Schema, Store, StoreError};

impl<S: Store, F: Feed> Drain<S, F> {
    /// Commits the batch, for as long as it takes.
    pub(super) async fn commit(&mut self) -> Result<Next, FeedError> {
        let (mut failures, mut though_it_answers) = (0, 0);
        loop {
            let wrong = match self.offer().await {
                Ok(CommitOutcome::Committed(committed)) => {
                    self.settle(&committed)?;
                    return Ok(Next::Gather);
                }
                Ok(CommitOutcome::WentBack(_)) => {
                    if !F::LASTS {
                        tracing::warn!("the database went back: what it lost was acknowledged and is gone");
                    }
                    sleep(FIRST_RETRY).await;
                    return Ok(Next::Begin);
                }
                Ok(CommitOutcome::Fenced) => {
                    tracing::error!(lane = ?self.feed.lane(), "another process writes under this lane's id in ingest_checkpoints");
                    self.reason(Reason::JournalFenced, true);
                    self.feed.fenced();
                    sleep(SLOW_RETRY).await;
                    return Ok(Next::Begin);
                }
                Err(wrong) => wrong,
            };
            self.around.metrics.store_retries.increment(1);
            if self.feed.is_second_try() && !wrong.in_doubt() {
                // Still not: others have their turn.
                self.around.metrics.store_error(wrong.class);
                self.abandon()?;
                return Ok(Next::Gather);
            }
            let dividing = self.most_frames != usize::MAX;
            if dividing && !wrong.in_doubt() && self.load.frames > 1 {
                // It was waited for already; what is left is to find the frame.
                self.around.metrics.store_error(wrong.class);
                sleep(FIRST_RETRY).await;
            } else {
                self.wait_after(&wrong, &mut failures).await;
            }
            // A database that answers and will not take a batch may take its parts: a few frames with a record for every day
            // of a year need more locks in one transaction than it has. Everybody else must not wait for them. A batch in
            // doubt stays as it is.
            let answers = matches!(self.store.schema().await, Ok(Schema::Current | Schema::Newer));
            though_it_answers = if answers { though_it_answers + 1 } else { 0 };
            let enough = if dividing { 1 } else { APART_AFTER };
            if though_it_answers >= enough && !wrong.in_doubt() && self.divide(&wrong) {
                self.abandon()?;
                return Ok(Next::Gather);
            }
        }
    }

    /// Makes the next batch half as large, or sets its only frame aside; whether that can be done.
    fn divide(&mut self, wrong: &StoreError) -> bool {
        if self.load.frames > 1 {
            self.most_frames = self.load.frames / 2;
            return true;
        }
        let aside = self.load.frames == 1 && self.feed.set_aside();
        if aside {
            tracing::error!(
                class = %wrong.class, error = %wrong, cause = %wrong.source,
                "the database does not take a frame even alone; others go on, and its tracker stays unanswered"
            );
        }
        aside
    }

    /// Offers the batch to the store: as it was offered before, or for the first time.
    async fn offer(&mut self) -> Result<CommitOutcome, StoreError> {
        let step = match self.offered {
            Some(step) => step,
            None => self.step(),
        };
        self.offered = Some(step);
        let begun = Instant::now();
        let outcome = self.store.commit(self.builder.batch(), &step).await?;
        if let CommitOutcome::Committed(committed) = &outcome {
            self.around.metrics.commit_duration(committed.path(), begun.elapsed());
        }
        self.reason(Reason::JournalFenced, false);
        self.up();
        Ok(outcome)
    }

    /// Completes the batch. Newest positions go along once a second where they can be built anew after a crash.
    fn step(&mut self) -> BatchSpan {
        let (from, to) = self.feed.span();
        if !F::LASTS || Instant::now() >= self.due || self.feed.is_pressed(to) {
            self.builder.add_newest();
        }
        let written = self.builder.writes_newest() || !self.builder.has_newest();
        let latest = if written { to.position } else { self.feed.stands().latest };
        BatchSpan { from, to: Checkpoint { mark: to, latest } }
    }

    fn settle(&mut self, committed: &Committed) -> Result<(), FeedError> {
        let Some(BatchSpan { to, .. }) = self.offered else { return Ok(()) };
        let batch = self.builder.batch();
        if batch.offered() > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a histogram sample is a float")]
            self.around.metrics.commit_rows.record(batch.offered() as f64);
        }
        let refused = u64::try_from(committed.refused().len()).unwrap_or(u64::MAX);
        let mut quarantined = self.builder.quarantined();
        quarantined[QuarantineReason::Refused as usize] += refused;
        self.around.metrics.quarantine_capped.increment(committed.capped());
        let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        for newest_ms in self.builder.newest_ms() {
            let age_ms = u64::try_from(now_ms.saturating_sub(newest_ms)).unwrap_or(0);
            self.around.metrics.freshness.record(Duration::from_millis(age_ms));
        }
        self.around.tally.committed(committed.inserted(), committed.duplicates(), quarantined);
        self.builder.committed(committed);
        if to.latest == to.mark.position {
            self.due = Instant::now() + NEWEST_EVERY;
        }
        self.most_frames = grown(self.most_frames);
        self.feed.committed(to, committed)?;
        self.begin_batch();
        Ok(())
    }
}

/// Twice as many, and soon as many as there are.
fn grown(frames: usize) -> usize {
    if frames >= MANY_FRAMES { usize::MAX } else { frames * 2 }
}

/// Failures of a batch in a row, with a database that answers, before its frames are tried one by one. One is ordinary:
/// the database came back after an outage.
const APART_AFTER: u32 = 2;
/// More than a batch holds.
const MANY_FRAMES: usize = 1 << 16;
/// Written in every batch, newest positions would halve the rate of a large fleet.
const NEWEST_EVERY: Duration = Duration::from_secs(1);
