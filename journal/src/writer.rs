//! The writer takes the waiting entries as a group, writes it, syncs once, and answers all of them.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use super::appender::Appender;
use super::error::{AppendError, Poisoned};
use super::group::Group;
use super::log::{Log, LogOutcome};
use super::queue::{Queue, WriterWork};

/// Called on the writer's thread with the time of each write with its sync.
pub type OnSync = Box<dyn Fn(Duration) + Send>;

/// The writer without its thread. Dropping it ends all waits for receipts.
pub struct Writer {
    log: Log,
    queue: Arc<Queue>,
    on_sync: OnSync,
    under_way: Option<(Group, u64)>,
    /// Gathers next.
    spare: Group,
    wakers: Vec<Waker>,
    closed: bool,
}

/// How a turn of the writer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterTurn {
    /// Nothing was waiting.
    Nothing,
    /// This number of entries survives a power cut now, and their tickets became receipts.
    Synced(u32),
    /// There is no room for the group that is under way. A task, a release or time may help.
    NoRoom,
    /// Nothing more will come. Everything is written that there was room for.
    Closed,
}

impl Writer {
    /// Writes to `log` in groups of at most `group_bytes`.
    #[must_use]
    pub fn new(log: Log, group_bytes: u32, on_sync: OnSync) -> Self {
        let (queue, spare) = (Arc::new(Queue::new(group_bytes)), Group::default());
        Self { log, queue, on_sync, under_way: None, spare, wakers: Vec::new(), closed: false }
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Returns where sessions append.
    #[must_use]
    pub fn appender(&self) -> Appender {
        Appender::new(Arc::clone(&self.queue))
    }

    /// Takes no more entries. Entries that were taken in are written.
    pub fn stop_taking(&self) {
        self.queue.close();
    }

    /// Takes the waiting entries as the group under way, unless there is one. Waits for entries at most for `patience`.
    pub fn take(&mut self, patience: Duration) {
        if self.under_way.is_some() || self.closed {
            return;
        }
        match self.queue.take(std::mem::take(&mut self.spare), patience) {
            WriterWork::Group(group, number) => self.under_way = Some((group, number)),
            WriterWork::Nothing(group) => self.spare = group,
            WriterWork::Closed(group) => (self.spare, self.closed) = (group, true),
        }
    }

    /// Writes the group under way, or the entries that wait now. Waits only for the disk.
    ///
    /// # Errors
    /// [`Poisoned`], and every ticket says so.
    pub fn turn(&mut self) -> Result<WriterTurn, Poisoned> {
        self.take(Duration::ZERO);
        self.write().inspect_err(|poisoned| {
            tracing::error!(doing = poisoned.doing, cause = %poisoned.source, "the journal failed; nothing is accepted any more");
            self.queue.end(poisoned.clone().into());
        })
    }

    fn write(&mut self) -> Result<WriterTurn, Poisoned> {
        let Some((group, number)) = &mut self.under_way else {
            if !self.closed {
                return Ok(WriterTurn::Nothing);
            }
            // A last group proves the one before it: what is missing after this is damage, not a torn tail.
            self.log.commit(&mut self.spare)?;
            return Ok(WriterTurn::Closed);
        };
        let begun = Instant::now();
        let LogOutcome::Synced(synced) = self.log.commit(group)? else {
            let catalog = self.log.catalog().lock();
            if catalog.full.is_some() {
                self.queue.hold();
                if self.queue.is_closed() {
                    return Ok(WriterTurn::Closed);
                }
            }
            return Ok(WriterTurn::NoRoom);
        };
        (self.on_sync)(begun.elapsed());
        self.queue.settle(*number, &synced, &mut self.wakers);
        let entries = group.entries();
        group.clear();
        self.spare = std::mem::take(group);
        self.under_way = None;
        Ok(WriterTurn::Synced(entries))
    }

    /// Turns until the journal is closed or has failed.
    pub(super) fn run(mut self) {
        let mut last = None;
        loop {
            gather(last);
            self.take(IDLE);
            let begun = Instant::now();
            match self.turn() {
                Ok(WriterTurn::Nothing) => {}
                Ok(WriterTurn::Synced(entries)) => last = Some((begun, entries)),
                Ok(WriterTurn::NoRoom) => self.wait_for_room(),
                Ok(WriterTurn::Closed) | Err(_) => return,
            }
        }
    }

    fn wait_for_room(&self) {
        let shared = self.log.catalog();
        let catalog = shared.lock();
        if catalog.spares.is_empty() || catalog.full.is_some() {
            drop(shared.room.wait_timeout(catalog, STUCK));
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// If several entries came at a time, lets more of them gather before the next sync. Syncs that follow each other at once
/// cost half the time of a core, and the next answer waits for that core. A single tracker never waits.
fn gather(last: Option<(Instant, u32)>) {
    if let Some((begun, entries)) = last
        && entries >= SEVERAL
    {
        let pause = GATHER.saturating_sub(begun.elapsed());
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
}

impl Drop for Writer {
    /// However the writer ends, also by a panic, no wait for a receipt goes on.
    fn drop(&mut self) {
        self.queue.end(AppendError::Closed);
    }
}

const SEVERAL: u32 = 2;
/// From the beginning of one sync to that of the next.
const GATHER: Duration = Duration::from_micros(400);
/// How long the writer sleeps if nobody wakes it.
const IDLE: Duration = Duration::from_secs(1);
/// How often a writer without room tries again if nobody wakes it.
const STUCK: Duration = Duration::from_millis(100);
