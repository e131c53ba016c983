//! The two threads of a journal. The writer takes what is waiting, writes it, syncs once, answers all. The keeper makes segments
//! ahead of time and gives old ones away, so that the writer waits for neither.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::error::{AppendError, Poisoned};
use super::group::Group;
use super::log::{Log, LogOutcome};
use super::queue::{Appender, Queue, Work};
use super::shared_catalog::SharedCatalog;
use crate::wall_clock::system_us;

/// Told how long each write with its sync took; called on the writer's thread.
pub type OnSync = Box<dyn Fn(Duration) + Send>;

/// Both threads; dropping them closes the journal: what was taken in is written first.
pub(super) struct Threads {
    shared: Arc<SharedCatalog>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(log: Log, group_bytes: u32, on_sync: OnSync) -> io::Result<Self> {
        let shared = Arc::clone(log.catalog());
        let writer = Writer::new(log, group_bytes, on_sync);
        let queue = Arc::clone(&writer.queue);
        let mut threads = Self { shared: Arc::clone(&shared), queue: Arc::clone(&queue), writer: None, keeper: None };
        let keeper = thread::Builder::new().name("odograph-keeper".to_owned());
        threads.keeper = Some(keeper.spawn({
            let queue = Arc::clone(&queue);
            move || keep(&shared, &queue)
        })?);
        let thread = thread::Builder::new().name("odograph-journal".to_owned());
        threads.writer = Some(thread.spawn(move || writer.run())?);
        Ok(threads)
    }

    pub(super) fn stop_taking(&self) {
        self.queue.close();
        self.shared.room.notify_one();
    }

    pub(super) fn appender(&self) -> Appender {
        Appender::new(Arc::clone(&self.queue))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop_taking();
        // The writer may need the keeper until its end. A thread that panicked has left its entries unanswered.
        let _ = self.writer.take().map(JoinHandle::join);
        self.shared.lock().keeper.stopped = true;
        self.shared.chores.notify_one();
        let _ = self.keeper.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

/// The keeper: does chores until the writer has ended.
fn keep(shared: &SharedCatalog, queue: &Queue) {
    loop {
        if shared.chore(system_us()) {
            continue;
        }
        let catalog = shared.lock();
        if let Some(poisoned) = catalog.poisoned.clone() {
            drop(catalog);
            return queue.end(poisoned.into());
        }
        if catalog.keeper.stopped {
            return;
        }
        if !catalog.keeper.due {
            drop(shared.chores.wait_timeout(catalog, IDLE));
        }
    }
}

/// The writer without its thread: takes what is waiting, writes it, syncs once, answers all. Dropping it leaves nobody waiting for a
/// receipt in vain.
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

/// What came of a turn of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterTurn {
    /// Nothing was waiting.
    Nothing,
    /// So many entries survive a power cut now, and their tickets became receipts.
    Synced(u32),
    /// There is no room for the group that is under way. A chore, a release or time may help.
    NoRoom,
    /// Nothing more will come: everything was written that there was room for.
    Closed,
}

impl Writer {
    /// Writes to `log` in groups of at most `group_bytes`.
    #[must_use]
    pub fn new(log: Log, group_bytes: u32, on_sync: OnSync) -> Self {
        let (queue, spare) = (Arc::new(Queue::new(group_bytes)), Group::default());
        Self { log, queue, on_sync, under_way: None, spare, wakers: Vec::new(), closed: false }
    }

    /// For sessions.
    #[must_use]
    pub fn appender(&self) -> Appender {
        Appender::new(Arc::clone(&self.queue))
    }

    /// No entry is taken in any more. Those that were are written.
    pub fn stop_taking(&self) {
        self.queue.close();
    }

    /// Takes what is waiting as the group that is under way, unless there is one; waits for entries at most for `patience`.
    pub fn take(&mut self, patience: Duration) {
        if self.under_way.is_some() || self.closed {
            return;
        }
        match self.queue.take(std::mem::take(&mut self.spare), patience) {
            Work::Group(group, number) => self.under_way = Some((group, number)),
            Work::Nothing(group) => self.spare = group,
            Work::Closed(group) => (self.spare, self.closed) = (group, true),
        }
    }

    /// Writes the group that is under way, or else what is waiting now. Waits for nothing but the disk.
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
    fn run(mut self) {
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

/// Where several entries came at a time, lets more of them gather before the next sync: syncs that follow each other at once cost
/// a core half of its time, and what then waits for that core is the next answer. One tracker alone never waits.
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
    /// Whatever ends the writer, a panic included, nobody waits for a receipt in vain.
    fn drop(&mut self) {
        self.queue.end(AppendError::Closed);
    }
}

const SEVERAL: u32 = 2;
/// From the beginning of one sync to that of the next.
const GATHER: Duration = Duration::from_micros(400);
/// How long a thread sleeps when nobody wakes it.
const IDLE: Duration = Duration::from_secs(1);
/// How often a writer without room looks again when nobody wakes it.
const STUCK: Duration = Duration::from_millis(100);
