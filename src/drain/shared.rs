//! What the lanes of one journal share: how far each of them is, what may be released, and the journal's name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock::now_us;
use super::gap::GapFile;
use crate::checkpoint::{JournalId, Position};
use crate::health::{Health, Reason};
use crate::journal::{Contents, Poisoned, Why};
use crate::metrics::{JournalMetrics, Tally};

/// The draining of one journal.
pub struct Draining {
    pub(super) contents: Arc<Contents>,
    pub(super) tally: Arc<Tally>,
    pub(super) health: Arc<Health>,
    /// The operator says that the clock is right, whatever the journal says.
    pub(super) accept_clock: bool,
    metrics: JournalMetrics,
    gaps: GapFile,
    lanes: Mutex<Vec<Progress>>,
    /// Drawn by this process for a journal that could not vouch for its past.
    drawn: Mutex<Option<JournalId>>,
}

/// How far a lane is.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Everything before is committed, newest positions included.
    done: Position,
    /// Receive time of its oldest entry that is not committed, microseconds.
    oldest_us: Option<i64>,
}

impl Draining {
    /// The draining of an open journal in so many lanes.
    #[must_use]
    pub fn new(
        contents: Arc<Contents>,
        lanes: u16,
        gaps: GapFile,
        accept_clock: bool,
        (tally, health, metrics): (Arc<Tally>, Arc<Health>, JournalMetrics),
    ) -> Self {
        let begun = Progress { done: contents.status().released, oldest_us: None };
        let lanes = Mutex::new(vec![begun; usize::from(lanes)]);
        Self { contents, tally, health, accept_clock, metrics, gaps, lanes, drawn: Mutex::default() }
    }

    pub(super) fn lanes(&self) -> u16 {
        u16::try_from(self.progress().len()).unwrap_or(u16::MAX)
    }

    /// Brings the journal's gauges and reasons up to date.
    pub fn look(&self) {
        use crate::journal::State;
        let status = self.contents.status();
        let oldest = self.oldest();
        let done = self.progress().iter().map(|lane| lane.done).min().unwrap_or_default();
        self.metrics.show(&status, status.end.0.saturating_sub(done.0), oldest);
        self.health.set(Reason::JournalFull, 0, matches!(status.state, State::Full(_)));
        self.health.set(Reason::JournalPoisoned, 0, status.state == State::Poisoned);
        self.health.set(Reason::Backlog, 0, oldest > BACKLOG_AFTER);
    }

    /// How long the oldest uncommitted entry has been waiting.
    fn oldest(&self) -> Duration {
        let oldest_us = self.progress().iter().filter_map(|lane| lane.oldest_us).min();
        let waited_us = oldest_us.map_or(0, |oldest_us| now_us().saturating_sub(oldest_us));
        Duration::from_micros(u64::try_from(waited_us).unwrap_or(0))
    }

    /// The lane has entries since then that are not committed, or none.
    pub(super) fn waits(&self, lane: u16, oldest_us: Option<i64>) {
        if let Some(progress) = self.progress().get_mut(usize::from(lane)) {
            progress.oldest_us = oldest_us;
        }
    }

    /// The lane has committed everything before `position`; what all have committed is released.
    pub(super) fn done(&self, lane: u16, position: Position) -> Result<(), Poisoned> {
        let slowest = self.set(lane, position);
        self.contents.release(slowest)
    }

    /// The lane goes on at `position`: where that was released before, it is not any more.
    pub(super) fn begins(&self, lane: u16, position: Position) -> Result<(), Poisoned> {
        self.set(lane, position);
        if position < self.contents.status().released { self.contents.rewind(position) } else { Ok(()) }
    }

    fn set(&self, lane: u16, position: Position) -> Position {
        let mut lanes = self.progress();
        if let Some(progress) = lanes.get_mut(usize::from(lane)) {
            progress.done = position;
        }
        lanes.iter().map(|lane| lane.done).min().unwrap_or_default()
    }

    /// Gives the journal a new id, unless another lane has done so since `seen`.
    pub(super) fn rename(&self, seen: JournalId, why: Why) -> Result<(), Poisoned> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.contents.id() != seen {
            return Ok(());
        }
        let id = JournalId::random();
        tracing::error!(
            journal = %seen, new = %id, ?why,
            "the database knows more of this journal than it holds, or other things: it was put back, copied, or lost its \
             end. It takes a new id, and everything that is kept is drained again; rows that are there already stay as they are"
        );
        self.contents.reidentify(id)?;
        *drawn = Some(id);
        Ok(())
    }

    /// The journal begins after the lane's checkpoint. No gap under an id that was drawn just now: what was given away had
    /// been committed under the former one.
    pub(super) fn gap(&self, journal: JournalId, from: Position, to: Position) {
        let drawn = *self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if from == Position(0) && drawn == Some(journal) {
            return;
        }
        self.health.raise(Reason::JournalGap);
        match self.gaps.note(journal, from, to) {
            Ok(false) => return,
            Ok(true) => {}
            Err(wrong) => tracing::error!(error = %wrong, "the gap cannot be noted and will be forgotten by a restart"),
        }
        self.metrics.gap_bytes.increment(to.0 - from.0);
        tracing::error!(
            %journal, %from, %to,
            "a part of the journal that the database lacks is gone; what exists is drained. Was an old backup restored? \
             `odograph serve --accept-gap` ends this alarm"
        );
    }

    fn progress(&self) -> MutexGuard<'_, Vec<Progress>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch is committed within a second or two.
const BACKLOG_AFTER: Duration = Duration::from_mins(1);
