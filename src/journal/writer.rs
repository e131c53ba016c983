//! The two threads of a journal. The writer takes what is waiting, writes it, syncs once, answers all. The keeper makes segments
//! ahead of time and gives old ones away, so that the writer waits for neither.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::contents::Contents;
use super::error::{AppendError, Poisoned};
use super::group::Group;
use super::log::{Log, Outcome, Synced};
use super::queue::{Appender, Queue, Work};

/// Told how long each write with its sync took; called on the writer's thread.
pub type OnSync = Box<dyn Fn(Duration) + Send>;

/// The wall clock, microseconds since 1970-01-01 UTC.
pub(super) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Both threads; dropping them closes the journal: what was taken in is written first.
pub(super) struct Threads {
    contents: Arc<Contents>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(log: Log, group_bytes: u32, on_sync: OnSync) -> io::Result<Self> {
        let (contents, queue) = (Arc::clone(log.contents()), Arc::new(Queue::new(group_bytes)));
        let mut threads =
            Self { contents: Arc::clone(&contents), queue: Arc::clone(&queue), writer: None, keeper: None };
        let keeper = thread::Builder::new().name("odograph-keeper".to_owned());
        threads.keeper = Some(keeper.spawn({
            let queue = Arc::clone(&queue);
            move || keep(&contents, &queue)
        })?);
        let writer = Writer { log, queue, on_sync };
        let thread = thread::Builder::new().name("odograph-journal".to_owned());
        threads.writer = Some(thread.spawn(move || writer.run())?);
        Ok(threads)
    }

    pub(super) fn stop_taking(&self) {
        self.queue.close();
        self.contents.room.notify_one();
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
        self.contents.catalog().keeper.stopped = true;
        self.contents.chores.notify_one();
        let _ = self.keeper.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

/// The keeper: does chores until the writer has ended.
fn keep(contents: &Contents, queue: &Queue) {
    loop {
        if contents.chore(now_us()) {
            continue;
        }
        let catalog = contents.catalog();
        if let Some(poisoned) = catalog.poisoned.clone() {
            drop(catalog);
            return queue.end(poisoned.into());
        }
        if catalog.keeper.stopped {
            return;
        }
        if !catalog.keeper.due {
            drop(contents.chores.wait_timeout(catalog, IDLE));
        }
    }
}

struct Writer {
    log: Log,
    queue: Arc<Queue>,
    on_sync: OnSync,
}

impl Writer {
    fn run(mut self) {
        if let Err(poisoned) = self.work() {
            tracing::error!(doing = poisoned.doing, cause = %poisoned.source, "the journal failed; nothing is accepted any more");
            self.queue.end(poisoned.into());
        }
    }

    fn work(&mut self) -> Result<(), Poisoned> {
        let mut spare = Group::default();
        let mut wakers = Vec::new();
        let mut last = None;
        loop {
            gather(last);
            spare = match self.queue.take(spare, IDLE) {
                Work::Group(mut group, number) => {
                    let begun = Instant::now();
                    let Some(synced) = self.commit(&mut group)? else { return Ok(()) };
                    self.queue.settle(number, &synced, &mut wakers);
                    last = Some((begun, group.entries()));
                    group.clear();
                    group
                }
                Work::Nothing(group) => group,
                Work::Closed(mut group) => {
                    // A last group proves the one before it: what is missing after this is damage, not a torn tail.
                    self.log.commit(&mut group)?;
                    return Ok(());
                }
            }
        }
    }

    /// Commits a group, waiting for room as long as it takes; `None` when the journal is closed while it is full.
    fn commit(&mut self, group: &mut Group) -> Result<Option<Synced>, Poisoned> {
        loop {
            let begun = Instant::now();
            if let Outcome::Synced(synced) = self.log.commit(group)? {
                (self.on_sync)(begun.elapsed());
                return Ok(Some(synced));
            }
            let contents = Arc::clone(self.log.contents());
            let catalog = contents.catalog();
            if catalog.full.is_some() {
                self.queue.hold();
                if self.queue.is_closed() {
                    return Ok(None);
                }
            }
            if catalog.spares.is_empty() || catalog.full.is_some() {
                drop(contents.room.wait_timeout(catalog, STUCK));
            }
        }
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
