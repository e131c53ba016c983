//! What the journal holds and what is to be done about it: plain state, no disk, no clock.
//!
//! The invariant: a segment that is not released is never given away, and entries behind `end` are not synced yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use super::error::Poisoned;
use super::history::History;
use super::limits::Limits;
use super::options::RecoveryMode;
use super::recovery::RecoveredState;
use super::segment::{Segment, Spare};
use super::status::{FullCause, JournalState, Status};
use crate::position::{Mark, Position};

#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) limits: Limits,
    /// Oldest first.
    pub(super) segments: VecDeque<Segment>,
    /// Everything before is synced.
    pub(super) end: Mark,
    /// Everything before is committed.
    pub(super) released: Position,
    /// Segments that are ready, the next one first.
    pub(super) spares: VecDeque<Spare>,
    /// Files of former segments that hold nothing.
    pub(super) unused: Vec<Spare>,
    pub(super) next_number: u64,
    pub(super) maintenance: MaintenanceState,
    /// The writer waits for a spare.
    pub(super) stuck: bool,
    pub(super) full: Option<FullCause>,
    /// There was no space; not to be tried before.
    pub(super) no_space_until_us: Option<i64>,
    pub(super) poisoned: Option<Poisoned>,
    pub(super) recovery: RecoveryMode,
    pub(super) counts: Counts,
    /// Readers that wait for entries.
    pub(super) readers: Vec<Waker>,
}

/// How the doing of tasks stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MaintenanceState {
    /// A task is under way.
    busy: bool,
    /// Something changed since tasks were looked for.
    pub(super) due: bool,
    /// The writer has ended: no more tasks.
    pub(super) stopped: bool,
}

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) groups: u64,
    pub(super) entries: u64,
    pub(super) keep_shortened: u64,
    pub(super) damage_skipped_bytes: u64,
}

/// Work on files that nobody waits for, if it is done in time.
#[derive(Debug)]
pub(super) enum SegmentTask {
    /// Make a new file into segment `number`.
    Create { number: u64, size: u64 },
    /// Make the file of segment `old` into segment `number`.
    Reuse { old: u64, number: u64, size: u64 },
    /// Remove the file of segment `old`.
    Remove { old: u64 },
}

/// How a task ended.
#[derive(Debug)]
pub(super) enum TaskOutcome {
    Spare(Spare),
    Removed,
    NoSpace,
}

impl Catalog {
    pub(super) fn new(limits: Limits, recovery: RecoveryMode, found: RecoveredState) -> Self {
        let RecoveredState { segments, unused, end, released, next_number, opened } = found;
        // The note lags: what was given away since had been released.
        let released = released.max(segments.first().map_or(end, |first| first.start).position);
        let counts = Counts { damage_skipped_bytes: opened.damage_skipped_bytes, ..Counts::default() };
        Self {
            limits,
            segments: segments.into(),
            end,
            released,
            spares: VecDeque::new(),
            unused,
            next_number,
            maintenance: MaintenanceState::default(),
            stuck: false,
            full: None,
            no_space_until_us: None,
            poisoned: None,
            recovery,
            counts,
            readers: Vec::new(),
        }
    }

    /// The most urgent task, if any; it is under way then, until [`Self::done`].
    pub(super) fn next_task(&mut self, now_us: i64) -> Option<SegmentTask> {
        self.maintenance.due = false;
        if self.maintenance.busy || self.poisoned.is_some() {
            return None;
        }
        let task = self.choose(now_us);
        self.maintenance.busy = task.is_some();
        if task.is_none() && self.spares.is_empty() && self.stuck && self.full.is_none() {
            self.full = Some(if self.no_space_until_us.is_some() { FullCause::NoSpace } else { FullCause::Limit });
        }
        task
    }

    fn choose(&mut self, now_us: i64) -> Option<SegmentTask> {
        let size = self.limits.segment_bytes();
        if let Some(unused) = self.unused.pop() {
            return self.give_away(unused.number, unused.size);
        }
        let keep_us = i64::try_from(self.limits.keep().as_micros()).unwrap_or(i64::MAX);
        let expired = |segment: &Segment| {
            self.newest_us_up_to(segment).is_some_and(|newest_us| newest_us.saturating_add(keep_us) <= now_us)
        };
        if let Some(front) = self.free().filter(|front| expired(front)) {
            let (number, size) = (front.number, front.size);
            self.segments.pop_front();
            return self.give_away(number, size);
        }
        if !self.spares.is_empty() {
            return None;
        }
        let waits = self.no_space_until_us.is_some_and(|until| now_us < until);
        if self.files() < self.limits.files() && !waits {
            let number = self.number()?;
            return Some(SegmentTask::Create { number, size });
        }
        let front = self.free()?;
        let (number, size) = (front.number, front.size);
        self.segments.pop_front();
        self.counts.keep_shortened += 1;
        self.give_away(number, size)
    }

    /// When the newest entry of the oldest segment came, at the latest. After an opening that did not read the segment this is
    /// unknown: then no later than the newest entry of all. `None` if that is unknown too; unknown never means old.
    fn newest_us_up_to(&self, front: &Segment) -> Option<i64> {
        let known = |us: &i64| *us != i64::MIN;
        let newest_of_all = || self.segments.iter().map(|segment| segment.newest_us).max();
        Some(front.newest_us).filter(known).or_else(newest_of_all).filter(known)
    }

    /// What becomes of a file that is not needed.
    fn give_away(&mut self, old: u64, size: u64) -> Option<SegmentTask> {
        if self.spares.len() < SPARES && size == self.limits.segment_bytes() && self.files() < self.limits.files() {
            let number = self.number()?;
            return Some(SegmentTask::Reuse { old, number, size });
        }
        Some(SegmentTask::Remove { old })
    }

    fn files(&self) -> usize {
        self.segments.len() + self.spares.len()
    }

    fn number(&mut self) -> Option<u64> {
        let number = self.next_number;
        self.next_number = number.checked_add(1)?;
        Some(number)
    }

    /// The oldest segment, if it may be given away. Never the last one that holds a group: it knows where the journal ends.
    fn free(&self) -> Option<&Segment> {
        let later = self.segments.get(1)?;
        self.segments.front().filter(|front| front.end <= self.released && later.used > super::group::SECTOR)
    }

    /// Takes note of how the task ended.
    pub(super) fn finish_task(&mut self, result: Result<TaskOutcome, Poisoned>, now_us: i64) {
        self.maintenance.busy = false;
        match result {
            Ok(TaskOutcome::Spare(spare)) => {
                self.spares.push_back(spare);
                self.no_space_until_us = None;
            }
            Ok(TaskOutcome::Removed) => self.no_space_until_us = None,
            Ok(TaskOutcome::NoSpace) => self.no_space_until_us = Some(now_us.saturating_add(NO_SPACE_PAUSE_US)),
            Err(poisoned) => self.poison(poisoned),
        }
    }

    /// Begins the next segment, if there is a file for it and the state *full* may end.
    pub(super) fn roll(&mut self) -> Option<Spare> {
        self.maintenance.due = true;
        let over = self.full == Some(FullCause::Limit) && self.uncommitted_bytes() > self.limits.max_bytes() / 10 * 9;
        let spare = if over { None } else { self.spares.pop_front() };
        let Some(spare) = spare else {
            self.stuck = true;
            return None;
        };
        (self.stuck, self.full) = (false, None);
        self.segments.push_back(Segment {
            number: spare.number,
            file: Arc::clone(&spare.file),
            size: spare.size,
            start: self.end,
            end: self.end.position,
            used: super::group::SECTOR,
            newest_us: i64::MIN,
        });
        Some(spare)
    }

    /// The first error stays.
    pub(super) fn poison(&mut self, poisoned: Poisoned) {
        self.poisoned.get_or_insert(poisoned);
    }

    /// Everything before `position` is committed. Positions outside of the journal count as its ends.
    pub(super) fn release(&mut self, position: Position) {
        self.released = self.released.max(position.min(self.end.position));
        self.maintenance.due = true;
    }

    /// Nothing from `position` on is committed, whatever was said before.
    pub(super) fn rewind(&mut self, position: Position) {
        self.released = self.released.min(position).max(self.begin().position);
    }

    /// Where the oldest kept entry begins.
    pub(super) fn begin(&self) -> Mark {
        self.segments.front().map_or(self.end, |segment| segment.start)
    }

    pub(super) fn history(&self) -> History {
        History::new(self.begin(), self.end)
    }

    /// Bytes of files that hold what is not committed.
    pub(super) fn uncommitted_bytes(&self) -> u64 {
        let waiting = self.segments.iter().filter(|segment| segment.end > self.released);
        let done = |segment: &Segment| self.released.0.saturating_sub(segment.start.position.0);
        waiting.map(|segment| segment.used.saturating_sub(done(segment))).sum()
    }

    pub(super) fn status(&self) -> Status {
        let used: u64 = self.segments.iter().map(|segment| segment.used).sum();
        let uncommitted_bytes = self.uncommitted_bytes();
        let state = match (&self.poisoned, self.full) {
            (Some(_), _) => JournalState::Poisoned,
            (None, Some(full)) => JournalState::Full(full),
            (None, None) => JournalState::Open,
        };
        let Counts { groups, entries, keep_shortened, damage_skipped_bytes } = self.counts;
        Status {
            state,
            begin: self.begin().position,
            released: self.released,
            end: self.end.position,
            uncommitted_bytes,
            kept_bytes: used.saturating_sub(uncommitted_bytes),
            max_bytes: self.limits.max_bytes(),
            segments: self.segments.len(),
            newest_us: self.segments.iter().map(|segment| segment.newest_us).max().filter(|us| *us != i64::MIN),
            groups,
            entries,
            keep_shortened,
            damage_skipped_bytes,
        }
    }
}

/// Files that wait to be used again, at most. One is made new only when there is none; making one costs as much disk as filling it.
const SPARES: usize = 2;
/// A file system without space is not asked again sooner, unless a segment is released.
const NO_SPACE_PAUSE_US: i64 = 1_000_000;
