//! What the lanes of one journal share: how far each is, what may be released, and the journal's id.
//!
//! The invariant: a position is released only when every lane has committed everything before it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::clock::{self, ImplausibleClock};
use super::gap::GapFile;
use super::host_clock::HostClock;
use super::journal_metrics::JournalMetrics;
use crate::health::{Health, Reason};
use crate::metrics::Tally;
use odograph_journal::{HistoryMismatch, JournalId, Poisoned, Position, ReadError, Reader, SharedCatalog, WallClock};

/// How far one journal is drained.
pub struct JournalProgress {
    pub(super) catalog: Arc<SharedCatalog>,
    pub(super) tally: Arc<Tally>,
    pub(super) health: Arc<Health>,
    /// The operator says that the clock is right.
    pub(super) accept_clock: bool,
    pub(super) wall: WallClock,
    metrics: JournalMetrics,
    gaps: GapFile,
    host_clock: Mutex<HostClock>,
    lanes: Mutex<LaneTable>,
}

/// Why the oldest waiting entry is not known.
#[derive(Debug, thiserror::Error)]
pub enum OldestUnknown {
    /// Receive times are meaningless with such a clock.
    #[error("this machine's clock is implausible: {0:?}")]
    Clock(ImplausibleClock),
    /// Not every lane has asked the database yet. It may be behind what the journal has released.
    #[error("not every lane knows its checkpoint yet")]
    Beginning,
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[source] ReadError),
}

/// All lanes. The lock is held while the journal is released or rewound, so that no lane undoes what another one did.
struct LaneTable {
    each: Vec<LaneProgress>,
    /// An id drawn for a journal that could not vouch for its past, until every lane has committed under it.
    drawn: Option<JournalId>,
    /// The position of the slowest lane, and when it last moved.
    moved: (Position, Instant),
}

/// One lane.
#[derive(Clone, Copy, Debug)]
struct LaneProgress {
    /// Everything before is committed, latest positions included.
    done: Position,
    /// Receive time of its oldest entry that is not committed, microseconds.
    oldest_us: Option<i64>,
    /// Whether it has committed under the current id.
    committed: bool,
    /// Whether it has asked the database for its checkpoint.
    begun: bool,
}

impl LaneTable {
    fn slowest(&self) -> Position {
        self.each.iter().map(|lane| lane.done).min().unwrap_or_default()
    }
}

impl JournalProgress {
    /// For an open journal. `is_renamed` says that opening it drew a new id.
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
        let begun = LaneProgress { done: released, oldest_us: None, committed: false, begun: false };
        let lanes = LaneTable {
            each: vec![begun; usize::from(lanes)],
            drawn: gaps.is_drawn(id).then_some(id),
            moved: (released, Instant::now()),
        };
        let host_clock = Mutex::new(HostClock::new(wall(), catalog.status().end));
        Self { catalog, tally, health, accept_clock, wall, metrics, gaps, host_clock, lanes: Mutex::new(lanes) }
    }

    pub(super) fn lanes(&self) -> u16 {
        u16::try_from(self.lock().each.len()).unwrap_or(u16::MAX)
    }

    /// Bytes of entries, messages included, that the database may lack.
    pub fn uncommitted_bytes(&self) -> u64 {
        let end = self.catalog.status().end;
        end.0.saturating_sub(self.behind(end).0.0)
    }

    /// Brings the journal's gauges and reasons up to date.
    pub fn update_gauges(&self) {
        use odograph_journal::JournalState;
        let status = self.catalog.status();
        let (done, oldest) = self.behind(status.end);
        self.metrics.show(&status, status.end.0.saturating_sub(done.0), oldest);
        self.health.set(Reason::JournalFull, 0, matches!(status.state, JournalState::Full(_)));
        self.health.set(Reason::JournalPoisoned, 0, status.state == JournalState::Poisoned);
        self.health.set(Reason::Backlog, 0, oldest > BACKLOG_AFTER);
    }

    /// The position that all lanes have committed, and how long the oldest uncommitted entry has waited.
    fn behind(&self, end: Position) -> (Position, Duration) {
        let mut lanes = self.lock();
        let done = lanes.slowest();
        if lanes.moved.0 != done || done >= end {
            lanes.moved = (done, Instant::now());
        }
        let oldest = match lanes.each.iter().filter_map(|lane| lane.oldest_us).min() {
            Some(oldest_us) => {
                let waited_us = (self.wall)().saturating_sub(oldest_us);
                Duration::from_micros(u64::try_from(waited_us).unwrap_or(0))
            }
            // No lane has read an entry yet: count from the last movement.
            None => lanes.moved.1.elapsed(),
        };
        (done, oldest)
    }

    /// Records the receive time of the oldest entry that the lane has not committed; `None` if there is none.
    pub(super) fn lane_waits(&self, lane: u16, oldest_us: Option<i64>) {
        if let Some(progress) = self.lock().each.get_mut(usize::from(lane)) {
            progress.oldest_us = oldest_us;
        }
    }

    /// Records that the lane has committed everything before `position`, and releases what all lanes have committed.
    pub(super) fn lane_committed(&self, lane: u16, position: Position) -> Result<(), Poisoned> {
        let mut lanes = self.lock();
        if let Some(progress) = lanes.each.get_mut(usize::from(lane)) {
            (progress.done, progress.committed) = (position, true);
        }
        if lanes.drawn.is_some() && lanes.each.iter().all(|lane| lane.committed) {
            lanes.drawn = None;
            self.gaps.forget_drawn();
        }
        self.catalog.release(lanes.slowest())
    }

    /// Records that the lane starts at `position`. If that was released, the release is taken back for all lanes: the others have
    /// lost as much, and may not have noticed yet.
    pub(super) fn lane_starts(&self, lane: u16, position: Position) -> Result<(), Poisoned> {
        let mut lanes = self.lock();
        if position < self.catalog.status().released {
            lanes.each.iter_mut().for_each(|lane| lane.done = lane.done.min(position));
            self.catalog.rewind(position)?;
        }
        if let Some(progress) = lanes.each.get_mut(usize::from(lane)) {
            (progress.done, progress.begun) = (progress.done.min(position), true);
        }
        Ok(())
    }

    /// The position that all lanes have committed; `None` until every lane has asked the database.
    pub(super) fn committed_up_to(&self) -> Option<Position> {
        let lanes = self.lock();
        lanes.each.iter().all(|lane| lane.begun).then(|| lanes.slowest())
    }

    /// Records that the lane has seeked to `position`, and releases what all lanes have passed. Needed even if nothing is ever
    /// committed again: after a kill the journal's release mark lags, and a full journal would stay full.
    pub(super) fn lane_reached(&self, lane: u16, position: Position) -> Result<(), Poisoned> {
        let mut lanes = self.lock();
        if let Some(progress) = lanes.each.get_mut(usize::from(lane)) {
            progress.done = position;
        }
        self.catalog.release(lanes.slowest())
    }

    /// Gives the journal a new id, unless another lane has done so since `seen`.
    pub(super) fn rename(&self, seen: JournalId, mismatch: HistoryMismatch) -> Result<(), Poisoned> {
        let mut lanes = self.lock();
        if self.catalog.id() != seen {
            return Ok(());
        }
        let id = JournalId::random();
        tracing::error!(
            journal = %seen, new = %id, why = ?mismatch,
            "the database holds a checkpoint that is not from this journal as it is now: the journal was restored, copied, or lost its \
             end. It takes a new id, and everything that it keeps is drained again; existing rows stay as they are"
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

    /// Reports that the journal begins after the lane's checkpoint. Under an id that was just drawn that is not a gap: what was
    /// removed had been committed under the former id.
    pub(super) fn gap(&self, journal: JournalId, from: Position, to: Position) {
        let lanes = self.lock();
        if from == Position(0) && lanes.drawn == Some(journal) {
            return;
        }
        self.health.raise(Reason::JournalGap);
        match self.gaps.note(journal, from, to) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => tracing::error!(error = %error, "cannot note the gap: a restart will forget it"),
        }
        self.metrics.gap_bytes.increment(to.0 - from.0);
        tracing::error!(
            %journal, %from, %to,
            "a part of the journal that the database lacks is lost; the rest is drained. Was an old backup restored? \
             `odograph serve --accept-gap` ends this alarm"
        );
    }

    /// Receive time of the oldest entry that may not be in the database, microseconds since 1970-01-01 UTC; `None` if all are
    /// there. It comes from the journal itself, so it is right between two batches too. Reads a group from the disk.
    ///
    /// # Errors
    /// When it is not known. Conclude nothing then.
    pub fn oldest_waiting_us(&self) -> Result<Option<i64>, OldestUnknown> {
        let implausible = clock::check((self.wall)(), self.catalog.status().newest_us);
        // Receive times of the journal that are ahead may be those of entries that wait: a deletion must not rest on them. The
        // time of the build is only a guess, and the database's clock knows better.
        let is_right = |error: &ImplausibleClock| match error {
            ImplausibleClock::BeforeBuild => self.host_clock().is_verified(),
            ImplausibleClock::BeforeJournal { .. } => false,
        };
        if let Some(error) = implausible.filter(|error| !self.accept_clock && !is_right(error)) {
            return Err(OldestUnknown::Clock(error));
        }
        let mut tries = 0;
        loop {
            let done = self.committed_up_to().ok_or(OldestUnknown::Beginning)?;
            let first =
                || Reader::open(&self.catalog, done)?.next().map(|entry| entry.map(|entry| entry.entry.received_at_us));
            match first() {
                // It was committed, released and removed meanwhile.
                Err(ReadError::NotKept { .. }) if tries < TRIES => tries += 1,
                first => return first.map_err(OldestUnknown::Journal),
            }
        }
    }

    pub(super) fn host_clock(&self) -> MutexGuard<'_, HostClock> {
        self.host_clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, LaneTable> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attempts to read the oldest entry before giving up.
const TRIES: u32 = 5;
/// A batch is committed within a second or two.
const BACKLOG_AFTER: Duration = Duration::from_mins(1);
