//! The two threads of a journal. The writer commits entries. The maintenance thread creates segments ahead of time and removes
//! old ones, so that the writer waits for neither.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::appender::Appender;
use super::error::Poisoned;
use super::log::Log;
use super::queue::Queue;
use super::shared_catalog::SharedCatalog;
use super::writer::{OnSync, Writer};
use crate::wall_clock::unix_now_us;

/// Both threads. Dropping them closes the journal: entries that were taken in are written first.
pub(super) struct Threads {
    shared: Arc<SharedCatalog>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    maintenance: Option<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(log: Log, group_bytes: u32, on_sync: OnSync) -> io::Result<Self> {
        let shared = Arc::clone(log.catalog());
        let writer = Writer::new(log, group_bytes, on_sync);
        let queue = Arc::clone(writer.queue());
        let mut threads =
            Self { shared: Arc::clone(&shared), queue: Arc::clone(&queue), writer: None, maintenance: None };
        let maintenance = thread::Builder::new().name("odograph-keeper".to_owned());
        threads.maintenance = Some(maintenance.spawn({
            let queue = Arc::clone(&queue);
            move || {
                let _guard = PanicGuard { shared: &shared, queue: &queue };
                maintain(&shared, &queue);
            }
        })?);
        let thread = thread::Builder::new().name("odograph-journal".to_owned());
        threads.writer = Some(thread.spawn({
            let (shared, queue) = (Arc::clone(&threads.shared), queue);
            move || {
                let _guard = PanicGuard { shared: &shared, queue: &queue };
                writer.run();
            }
        })?);
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
        // The writer may need the maintenance thread until its end. A thread that panicked has left its entries unanswered.
        let _ = self.writer.take().map(JoinHandle::join);
        self.shared.lock().maintenance.stopped = true;
        self.shared.tasks.notify_one();
        let _ = self.maintenance.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

/// Poisons the journal if its thread panics: nobody would be answered any more, and the process would stay up.
struct PanicGuard<'a> {
    shared: &'a SharedCatalog,
    queue: &'a Queue,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let panicked = io::Error::other("a thread of the journal panicked");
            self.queue.end(self.shared.poison(Poisoned::new("running", panicked)).into());
        }
    }
}

/// The maintenance thread: runs segment tasks until the writer has ended.
fn maintain(shared: &SharedCatalog, queue: &Queue) {
    loop {
        if shared.run_task(unix_now_us()) {
            continue;
        }
        let catalog = shared.lock();
        if let Some(poisoned) = catalog.poisoned.clone() {
            drop(catalog);
            return queue.end(poisoned.into());
        }
        if catalog.maintenance.stopped {
            return;
        }
        if !catalog.maintenance.due {
            drop(shared.tasks.wait_timeout(catalog, IDLE));
        }
    }
}

/// How long the maintenance thread sleeps if nobody wakes it.
const IDLE: Duration = Duration::from_secs(1);
