//! Committing what was taken: batches of the first frames, again and again, smaller ones where the database answers and
//! does not take them, and a frame aside that it does not take even alone.

use std::time::{Duration, Instant, SystemTime};

use tokio::time::sleep;

use super::builder::Frame;
use super::{Drain, FIRST_RETRY, Fenced};
use crate::checkpoint::{Mark, Position};
use crate::store::{Checkpoint, Committed, Outcome, QuarantineReason, Schema, Step, Store, StoreError};

impl<S: Store> Drain<S> {
    /// Commits what was taken, for as long as it takes.
    pub(super) async fn commit(&mut self) -> Result<(), Fenced> {
        let (mut failures, mut though_it_answers) = (0, 0);
        while !self.frames.is_empty() {
            match self.offer().await {
                Ok(Outcome::Committed(committed)) => {
                    (failures, though_it_answers) = (0, 0);
                    self.settle(&committed);
                    self.most_frames = grown(self.most_frames);
                }
                Ok(Outcome::WentBack(_)) => {
                    self.went_back();
                    sleep(FIRST_RETRY).await;
                }
                Ok(Outcome::Fenced) => return Err(Fenced),
                Err(wrong) => {
                    self.metrics.store_retries.increment(1);
                    let dividing = self.most_frames != usize::MAX;
                    if dividing && !wrong.in_doubt() {
                        // It was waited for already; what is left is to find the frame.
                        self.metrics.store_error(wrong.class);
                        sleep(FIRST_RETRY).await;
                    } else {
                        self.wait_after(&wrong, &mut failures).await;
                    }
                    // A database that answers and will not take a batch may take its parts: a few frames with a record
                    // for every day of a year need more locks in one transaction than it has. Everybody else must not
                    // wait for them. A batch in doubt stays as it is.
                    let answers = matches!(self.store.schema().await, Ok(Schema::Current | Schema::Newer));
                    though_it_answers = if answers { though_it_answers + 1 } else { 0 };
                    let enough = if dividing { 1 } else { APART_AFTER };
                    if though_it_answers >= enough && !wrong.in_doubt() && self.in_batch > 0 {
                        self.divide(&wrong);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the next batch half as large, or puts its only frame aside.
    fn divide(&mut self, wrong: &StoreError) {
        if self.in_batch > 1 {
            self.most_frames = self.in_batch / 2;
        } else if let Some(frame) = self.frames.pop_front() {
            tracing::error!(
                class = %wrong.class, error = %wrong, cause = %wrong.source, retry_in = ?ASIDE_EVERY,
                "the database does not take a frame even alone; others go on, and its tracker stays unanswered"
            );
            self.aside.push_back(frame);
            self.aside_tried = Instant::now();
        }
        self.abandon();
    }

    /// Offers one frame that was put aside once more. Where it is taken, whatever was wrong may be over, so all others follow;
    /// else the next one has its turn next time.
    pub(super) async fn retry_aside(&mut self) -> Result<(), Fenced> {
        if self.aside_tried.elapsed() < ASIDE_EVERY {
            return Ok(());
        }
        let Some(frame) = self.aside.pop_front() else { return Ok(()) };
        self.aside_tried = Instant::now();
        self.frames.push_back(frame);
        match self.offer().await {
            Ok(Outcome::Committed(committed)) => {
                self.settle(&committed);
                self.frames.append(&mut self.aside);
            }
            Ok(Outcome::WentBack(_)) => self.went_back(),
            Ok(Outcome::Fenced) => return Err(Fenced),
            // Goes on as it is, below.
            Err(wrong) if wrong.in_doubt() => {}
            Err(wrong) => {
                self.metrics.store_error(wrong.class);
                self.abandon();
                self.aside.append(&mut self.frames);
            }
        }
        self.commit().await
    }

    fn went_back(&mut self) {
        tracing::warn!("the database went back: what it lost was acknowledged and is gone");
        self.cursor = None;
        self.abandon();
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
/// For a frame that the database does not take even alone; within what its tracker waits for an answer.
const ASIDE_EVERY: Duration = Duration::from_secs(10);
