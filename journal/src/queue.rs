//! Between sessions and writer: one buffer that gathers entries, one on its way to the disk, and a list of wakers for each.
//!
//! An entry is copied once, into the buffer that is written. There is no channel and no allocation for an entry. Memory is
//! bounded by two groups: at the bound appending waits, and so sockets are not read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::entry::NewEntry;
use super::error::AppendError;
use super::group::Group;
use super::log::Synced;

/// What sessions appended and the writer has not committed yet.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// There may be work for the writer.
    work: Condvar,
    /// The last group that is synced, counted from 1.
    synced: AtomicU64,
    group_bytes: u32,
}

#[derive(Debug)]
struct QueueState {
    gathering: Group,
    /// The number of the group that gathers.
    number: u64,
    gathering_wakers: Vec<Waker>,
    writing_wakers: Vec<Waker>,
    room_wakers: Vec<Waker>,
    /// Counts how often that list was emptied.
    room_round: u64,
    /// The waker of the relay task, and the wakers that it calls.
    relay: Option<Waker>,
    relayed: Vec<Waker>,
    /// The writer found no room on the disk.
    full: bool,
    /// The writer is asleep.
    asleep: bool,
    closed: bool,
    /// The error of every ticket and of every later call.
    ended: Option<AppendError>,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) enum WriterWork {
    /// Commit this group, then call [`Queue::settle`] with the number.
    Group(Group, u64),
    /// Nothing arrived. The empty group comes back.
    Nothing(Group),
    /// The queue is closed, and everything is taken.
    Closed(Group),
}

impl Queue {
    pub(super) fn new(group_bytes: u32) -> Self {
        let state = QueueState {
            gathering: Group::default(),
            number: 1,
            gathering_wakers: Vec::new(),
            writing_wakers: Vec::new(),
            room_wakers: Vec::new(),
            room_round: 0,
            relay: None,
            relayed: Vec::new(),
            full: false,
            asleep: false,
            closed: false,
            ended: None,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), synced: AtomicU64::new(0), group_bytes }
    }

    /// Completes when there may be room. `slot` is the round of waiting and the place of the waker in its list.
    pub(super) fn poll_room(
        &self,
        stored_len: usize,
        slot: &mut Option<(u64, usize)>,
        context: &Context<'_>,
    ) -> Poll<()> {
        let mut state = self.state();
        let fits = state.gathering.length() as usize + stored_len <= self.group_bytes as usize;
        let never = state.closed || state.ended.is_some() || stored_len > self.group_bytes as usize;
        if never || fits && !state.full {
            return Poll::Ready(());
        }
        let round = state.room_round;
        let place = slot.filter(|(of, _)| *of == round).map(|(_, at)| at);
        *slot = Some((round, register(&mut state.room_wakers, place, context)));
        Poll::Pending
    }

    /// Takes the entry in if there is room now, and wakes the writer if it sleeps. Returns the number of its group.
    pub(super) fn append(&self, entry: &NewEntry<'_>) -> Result<u64, AppendError> {
        let mut state = self.state();
        if let Some(ended) = &state.ended {
            return Err(ended.clone());
        }
        if state.closed {
            return Err(AppendError::Closed);
        }
        let (length, most) = (entry.stored_len(), self.group_bytes as usize);
        if length > most {
            return Err(AppendError::TooLarge { bytes: entry.bytes.len() });
        }
        if state.full || state.gathering.length() as usize + length > most {
            return Err(AppendError::NoRoom);
        }
        state.gathering.push(entry);
        let group = state.number;
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.work.notify_one();
        }
        Ok(group)
    }

    /// Completes when a group is synced, or never will be. `slot` is the place of the waker in the list of its group.
    pub(super) fn poll_synced(
        &self,
        group: u64,
        slot: &mut Option<usize>,
        context: &Context<'_>,
    ) -> Poll<Result<(), AppendError>> {
        if self.synced.load(Ordering::Acquire) >= group {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state();
        if self.synced.load(Ordering::Acquire) >= group {
            return Poll::Ready(Ok(()));
        }
        if let Some(ended) = &state.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        let gathers = group == state.number;
        let list = if gathers { &mut state.gathering_wakers } else { &mut state.writing_wakers };
        *slot = Some(register(list, *slot, context));
        Poll::Pending
    }

    /// Waits for entries, at most for `patience`, and takes all of them. `empty` gathers from then on.
    pub(super) fn take(&self, empty: Group, patience: Duration) -> WriterWork {
        let until = Instant::now() + patience;
        let mut state = self.state();
        loop {
            if state.gathering.entries() > 0 {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed {
                return WriterWork::Closed(empty);
            }
            if left.is_zero() {
                return WriterWork::Nothing(empty);
            }
            state.asleep = true;
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = false;
        }
        let QueueState { gathering, number, gathering_wakers, writing_wakers, .. } = &mut *state;
        let group = std::mem::replace(gathering, empty);
        std::mem::swap(gathering_wakers, writing_wakers);
        let taken = *number;
        *number = taken + 1;
        let mut waiting = state.take_room_wakers();
        Self::wake(state, &mut waiting);
        WriterWork::Group(group, taken)
    }

    /// Turns the tickets of group `number` into receipts. The proof exists only after the sync.
    pub(super) fn settle(&self, number: u64, _proof: &Synced, wakers: &mut Vec<Waker>) {
        let mut state = self.state();
        self.synced.store(number, Ordering::Release);
        std::mem::swap(&mut state.writing_wakers, wakers);
        if std::mem::take(&mut state.full) {
            wakers.append(&mut state.take_room_wakers());
        }
        Self::wake(state, wakers);
    }

    /// Calls all wakers of a list, through the relay if that is cheaper.
    fn wake(mut state: MutexGuard<'_, QueueState>, wakers: &mut Vec<Waker>) {
        let relay = state.relay.clone().filter(|_| wakers.len() > 1);
        if relay.is_some() {
            state.relayed.append(wakers);
        }
        drop(state);
        relay.into_iter().chain(wakers.drain(..)).for_each(Waker::wake);
    }

    /// Gives the relay the wakers that it must call, and keeps its own waker for the next ones. Returns whether the journal
    /// has ended.
    pub(super) fn relay(&self, relay: Option<&Waker>, wakers: &mut Vec<Waker>) -> bool {
        let mut state = self.state();
        wakers.append(&mut state.relayed);
        let over = state.ended.is_some();
        state.relay = relay.filter(|_| !over).cloned();
        over
    }

    /// Takes nothing in until the next group is settled.
    pub(super) fn hold(&self) {
        self.state().full = true;
    }

    /// Takes no entry in any more. Entries that were taken in are written.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let waiting = state.take_room_wakers();
        drop(state);
        self.work.notify_one();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends every unsettled ticket and every later call with this error. The first one stays.
    pub(super) fn end(&self, how: AppendError) {
        let mut state = self.state();
        state.ended.get_or_insert(how);
        let QueueState { gathering_wakers, writing_wakers, room_wakers, relayed, relay, .. } = &mut *state;
        let lists = [gathering_wakers, writing_wakers, room_wakers, relayed];
        let waiting: Vec<Waker> = lists.into_iter().flat_map(std::mem::take).chain(relay.take()).collect();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Takes the wakers of everyone who waits for room.
    fn take_room_wakers(&mut self) -> Vec<Waker> {
        self.room_round += 1;
        std::mem::take(&mut self.room_wakers)
    }
}

/// Puts the waker into the list, or replaces the one that it put there before. Returns its place.
fn register(list: &mut Vec<Waker>, slot: Option<usize>, context: &Context<'_>) -> usize {
    if let Some((at, waker)) = slot.and_then(|at| Some((at, list.get_mut(at)?))) {
        waker.clone_from(context.waker());
        return at;
    }
    list.push(context.waker().clone());
    list.len() - 1
}
