//! What the lanes of one journal share: how far each of them is, what may be released, and the journal's name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::gap::GapFile;
use crate::health::{Health, Reason};
use crate::metrics::{JournalMetrics, Tally};
use odograph_journal::WallClock;
use odograph_journal::{HistoryMismatch, Poisoned, SharedCatalog};
use odograph_journal::{JournalId, Position};

/// The draining of one journal.
pub struct Draining {
    pub(super) catalog: Arc<SharedCatalog>,
    pub(super) tally: Arc<Tally>,
    pub(super) health: Arc<Health>,
    /// The operator says that the clock is right, whatever the journal says.
    pub(super) accept_clock: bool,
    pub(super) wall: WallClock,
    metrics: JournalMetrics,
    gaps: GapFile,
    lanes: Mutex<Lanes>,
}

/// How far the lanes are. Held while the journal is released or rewound, so that none undoes what another one did.
struct Lanes {
    each: Vec<Progress>,
    /// Drawn for a journal that could not vouch for its past; until every lane has committed something under it.
    drawn: Option<JournalId>,
    /// How far the slowest was when it last moved.
    moved: (Position, Instant),
}

/// How far a lane is.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Everything before is committed, newest positions included.
    done: Position,
    /// Receive time of its oldest entry that is not committed, microseconds.
    oldest_us: Option<i64>,
    /// It has committed since the journal was named.
    committed: bool,
    /// It has asked the database where it stands.
    begun: bool,
}

impl Lanes {
    fn slowest(&self) -> Position {
        self.each.iter().map(|lane| lane.done).min().unwrap_or_default()
    }
}

impl Draining {
    /// The draining of an open journal in so many lanes. `is_renamed` says that opening it drew a new id.
    #[must_use]
    pub fn new(
        catalog: Arc<SharedCatalog>,
        lanes: u16,
        gaps: GapFile,
        accept_clock: bool,
        is_renamed: bool,
        wall: WallClock,
        (tally, health, metrics): (Arc<Tally>, Arc<Health>, JournalMetrics),
    ) -> Self {
        let (released, id) = (catalog.status().released, catalog.id());
        if is_renamed {
            gaps.drawn(id);
        }
        let begun = Progress { done: released, oldest_us: None, committed: false, begun: false };
        let lanes = Lanes {
            each: vec![begun; usize::from(lanes)],
            drawn: gaps.is_drawn(id).then_some(id),
            moved: (released, Instant::now()),
        };
        Self { catalog, tally, health, accept_clock, wall, metrics, gaps, lanes: Mutex::new(lanes) }
    }

    pub(super) fn lanes(&self) -> u16 {
        u16::try_from(self.progress().each.len()).unwrap_or(u16::MAX)
    }

    /// Brings the journal's gauges and reasons up to date.
    pub fn look(&self) {
        use odograph_journal::JournalState;
        let status = self.catalog.status();
        let (done, oldest) = self.behind(status.end);
        self.metrics.show(&status, status.end.0.saturating_sub(done.0), oldest);
        self.health.set(Reason::JournalFull, 0, matches!(status.state, JournalState::Full(_)));
        self.health.set(Reason::JournalPoisoned, 0, status.state == JournalState::Poisoned);
        self.health.set(Reason::Backlog, 0, oldest > BACKLOG_AFTER);
    }

    /// How far all lanes are, and how long the oldest uncommitted entry has been waiting.
    fn behind(&self, end: Position) -> (Position, Duration) {
        let mut lanes = self.progress();
        let done = lanes.slowest();
        if lanes.moved.0 != done || done >= end {
            lanes.moved = (done, Instant::now());
        }
        let oldest = match lanes.each.iter().filter_map(|lane| lane.oldest_us).min() {
            Some(oldest_us) => {
                let waited_us = (self.wall)().saturating_sub(oldest_us);
                Duration::from_micros(u64::try_from(waited_us).unwrap_or(0))
            }
            // No lane has looked at what is there: since nothing moves.
            None => lanes.moved.1.elapsed(),
        };
        (done, oldest)
    }

    /// The lane has entries since then that are not committed, or none.
    pub(super) fn waits(&self, lane: u16, oldest_us: Option<i64>) {
        if let Some(progress) = self.progress().each.get_mut(usize::from(lane)) {
            progress.oldest_us = oldest_us;
        }
    }

    /// The lane has committed everything before `position`; what all have committed is released.
    pub(super) fn done(&self, lane: u16, position: Position) -> Result<(), Poisoned> {
        let mut lanes = self.progress();
        if let Some(progress) = lanes.each.get_mut(usize::from(lane)) {
            (progress.done, progress.committed) = (position, true);
        }
        if lanes.drawn.is_some() && lanes.each.iter().all(|lane| lane.committed) {
            lanes.drawn = None;
            self.gaps.forget_drawn();
        }
        self.catalog.release(lanes.slowest())
    }

    /// The lane is about to go on at `position`. Where that was released before it is not any more, for any lane: the others have
    /// lost as much, and may not have noticed yet.
    pub(super) fn begins(&self, lane: u16, position: Position) -> Result<(), Poisoned> {
        let mut lanes = self.progress();
        if position < self.catalog.status().released {
            lanes.each.iter_mut().for_each(|lane| lane.done = lane.done.min(position));
            self.catalog.rewind(position)?;
        }
        if let Some(progress) = lanes.each.get_mut(usize::from(lane)) {
            (progress.done, progress.begun) = (progress.done.min(position), true);
        }
        Ok(())
    }

    /// Before this everything is committed; `None` while a lane has not asked the database yet.
    pub(super) fn committed_up_to(&self) -> Option<Position> {
        let lanes = self.progress();
        lanes.each.iter().all(|lane| lane.begun).then(|| lanes.slowest())
    }

    /// The lane has gone there, and read what it needed of what lies before. What all have behind them is released, though
    /// nothing may ever come that is to be committed: what the journal knows of that lags behind the database after a kill, and
    /// one that was full would stay so.
    pub(super) fn stands(&self, lane: u16, position: Position) -> Result<(), Poisoned> {
        let mut lanes = self.progress();
        if let Some(progress) = lanes.each.get_mut(usize::from(lane)) {
            progress.done = position;
        }
        self.catalog.release(lanes.slowest())
    }

    /// Gives the journal a new id, unless another lane has done so since `seen`.
    pub(super) fn rename(&self, seen: JournalId, why: HistoryMismatch) -> Result<(), Poisoned> {
        let mut lanes = self.progress();
        if self.catalog.id() != seen {
            return Ok(());
        }
        let id = JournalId::random();
        tracing::error!(
            journal = %seen, new = %id, ?why,
            "the database knows more of this journal than it holds, or other things: it was put back, copied, or lost its \
             end. It takes a new id, and everything that is kept is drained again; rows that are there already stay as they are"
        );
        self.gaps.drawn(id);
        self.catalog.reidentify(id)?;
        lanes.drawn = Some(id);
        let begin = self.catalog.status().begin;
        for lane in &mut lanes.each {
            (lane.done, lane.committed) = (begin, false);
        }
        Ok(())
    }

    /// The journal begins after the lane's checkpoint. No gap under an id that was drawn just now: what was given away had
    /// been committed under the former one.
    pub(super) fn gap(&self, journal: JournalId, from: Position, to: Position) {
        let lanes = self.progress();
        if from == Position(0) && lanes.drawn == Some(journal) {
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

    fn progress(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch is committed within a second or two.
const BACKLOG_AFTER: Duration = Duration::from_mins(1);
