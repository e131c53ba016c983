//! Between sessions and writer: one buffer that gathers entries, one on its way to the disk, and a list of wakers for each.
//!
//! An entry is copied once, into the buffer that is written. No channel and no allocation an entry. Memory is bounded by two
//! groups: at the bound appending waits, and so sockets are not read.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::entry::NewEntry;
use super::error::AppendError;
use super::group::Group;
use super::log::Synced;
use super::relay::Relay;
use super::room::Room;

/// Proof that the records of one entry survive a power cut. Made only from a [`Synced`]; reading its count consumes it.
#[derive(Debug)]
pub struct Receipt {
    records: u8,
}

impl Receipt {
    /// The count that the entry was appended with: what the acknowledgement says.
    #[must_use]
    pub fn into_records(self) -> u8 {
        self.records
    }
}

/// The sessions' end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Appender {
    queue: Arc<Queue>,
}

impl Appender {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// Takes the entry in if there is room now. The ticket becomes its receipt; dropping it does not take the entry back.
    ///
    /// # Errors
    /// [`AppendError::NoRoom`], and what never passes.
    pub fn try_append(&self, entry: &NewEntry<'_>) -> Result<Ticket, AppendError> {
        let mut state = self.queue.state();
        let group = self.queue.push(&mut state, entry)?;
        self.queue.rouse(state);
        Ok(Ticket { queue: Arc::clone(&self.queue), group, records: entry.records, slot: None })
    }

    /// A task for the runtime of the sessions, which makes receipts cheaper.
    pub fn relay(&self) -> Relay {
        Relay::new(Arc::clone(&self.queue))
    }

    /// Takes the entry in, after waiting for room. Dropped before it completes, nothing was taken in.
    ///
    /// # Errors
    /// Never [`AppendError::NoRoom`].
    pub async fn append(&self, entry: NewEntry<'_>) -> Result<Ticket, AppendError> {
        loop {
            match self.try_append(&entry) {
                Err(AppendError::NoRoom) => self.room(entry.stored_len()).await,
                taken => return taken,
            }
        }
    }

    /// Completes when an entry of `stored_len` bytes on disk may be taken in, or none ever will. Others may be faster: try, and
    /// wait again.
    pub fn room(&self, stored_len: usize) -> Room<'_> {
        Room::new(&self.queue, stored_len)
    }
}

/// Puts the waker into the list, or in place of the one that it put there before.
fn register(list: &mut Vec<Waker>, slot: Option<usize>, context: &Context<'_>) -> usize {
    if let Some((at, waker)) = slot.and_then(|at| Some((at, list.get_mut(at)?))) {
        waker.clone_from(context.waker());
        return at;
    }
    list.push(context.waker().clone());
    list.len() - 1
}

/// Becomes the receipt of one entry once its group is synced.
#[derive(Debug)]
#[must_use = "an entry is acknowledged with the receipt that its ticket becomes"]
pub struct Ticket {
    queue: Arc<Queue>,
    group: u64,
    records: u8,
    /// Where its waker stands in the list of its group.
    slot: Option<usize>,
}

impl Future for Ticket {
    type Output = Result<Receipt, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let receipt = Receipt { records: self.records };
        if self.queue.synced.load(Ordering::Acquire) >= self.group {
            return Poll::Ready(Ok(receipt));
        }
        let queue = Arc::clone(&self.queue);
        let mut state = queue.state();
        if queue.synced.load(Ordering::Acquire) >= self.group {
            return Poll::Ready(Ok(receipt));
        }
        if let Some(ended) = &state.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        let gathers = self.group == state.number;
        let list = if gathers { &mut state.gathering_wakers } else { &mut state.writing_wakers };
        self.slot = Some(register(list, self.slot, context));
        Poll::Pending
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// Something for the writer to do.
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
    /// The task that wakes others, and those whom it is to wake.
    relay: Option<Waker>,
    relayed: Vec<Waker>,
    /// The writer found no room on the disk.
    full: bool,
    /// The writer is asleep.
    asleep: bool,
    closed: bool,
    /// What every ticket and every later call gets.
    ended: Option<AppendError>,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) enum Work {
    /// Commit this group, then say [`Queue::settle`] with the number.
    Group(Group, u64),
    /// Nothing came; the empty group is given back.
    Nothing(Group),
    /// Closed, and everything was taken.
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

    /// Notes whom to wake when there may be room, unless there is. `slot` is the round of waiting and the place in its list.
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

    fn push(&self, state: &mut QueueState, entry: &NewEntry<'_>) -> Result<u64, AppendError> {
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
        Ok(state.number)
    }

    /// Wakes the writer if it sleeps.
    fn rouse(&self, mut state: MutexGuard<'_, QueueState>) {
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.work.notify_one();
        }
    }

    /// Waits for entries, at most for `patience`, and takes all of them; `empty` gathers from then on.
    pub(super) fn take(&self, empty: Group, patience: Duration) -> Work {
        let until = Instant::now() + patience;
        let mut state = self.state();
        loop {
            if state.gathering.entries() > 0 {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed {
                return Work::Closed(empty);
            }
            if left.is_zero() {
                return Work::Nothing(empty);
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
        let mut waiting = state.room();
        Self::wake(state, &mut waiting);
        Work::Group(group, taken)
    }

    /// Turns the tickets of group `number` into receipts. Nobody has this proof before the sync.
    pub(super) fn settle(&self, number: u64, _proof: &Synced, wakers: &mut Vec<Waker>) {
        let mut state = self.state();
        self.synced.store(number, Ordering::Release);
        std::mem::swap(&mut state.writing_wakers, wakers);
        if std::mem::take(&mut state.full) {
            wakers.append(&mut state.room());
        }
        Self::wake(state, wakers);
    }

    /// Wakes all of a list, through the relay where that is cheaper.
    fn wake(mut state: MutexGuard<'_, QueueState>, wakers: &mut Vec<Waker>) {
        let relay = state.relay.clone().filter(|_| wakers.len() > 1);
        if relay.is_some() {
            state.relayed.append(wakers);
        }
        drop(state);
        relay.into_iter().chain(wakers.drain(..)).for_each(Waker::wake);
    }

    /// Gives the relay those whom it is to wake, and notes whom to wake for the next ones; whether the journal has ended.
    pub(super) fn relay(&self, relay: Option<&Waker>, wakers: &mut Vec<Waker>) -> bool {
        let mut state = self.state();
        wakers.append(&mut state.relayed);
        let over = state.ended.is_some();
        state.relay = relay.filter(|_| !over).cloned();
        over
    }

    /// Nothing is taken in until the next group is settled.
    pub(super) fn hold(&self) {
        self.state().full = true;
    }

    /// No entry is taken in any more; those that were are written.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let waiting = state.room();
        drop(state);
        self.work.notify_one();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Every ticket that is not settled and every later call gets this. The first one stays.
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
    /// Those who wait for room, to be woken.
    fn room(&mut self) -> Vec<Waker> {
        self.room_round += 1;
        std::mem::take(&mut self.room_wakers)
    }
}
