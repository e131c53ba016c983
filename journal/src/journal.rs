//! An open journal: the log, its threads and the lock of its directory.

use std::any::Any;
use std::io;
use std::sync::Arc;

use super::appender::Appender;
use super::error::{OpenError, Poisoned};
use super::log::Log;
use super::opening_draw::OpeningDraw;
use super::options::Options;
use super::recovery::OpeningReport;
use super::shared_catalog::SharedCatalog;
use super::storage::Storage;
use super::threads::Threads;
use super::writer::OnSync;
use crate::wall_clock::unix_now_us;

/// An open journal with its threads. Sessions hold its [`Appender`], the drain its [`SharedCatalog`].
#[derive(Debug)]
pub struct Journal {
    shared: Arc<SharedCatalog>,
    threads: Threads,
    _lock: Box<dyn Any + Send + Sync>,
}

impl Journal {
    /// Opens a journal, or creates one if there is none, and starts its threads. Everything that can be read is durable. The
    /// writer's thread calls `on_sync` with the time of each write with its sync.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is found before anything is changed.
    pub fn open(
        storage: Arc<dyn Storage>,
        options: Options,
        on_sync: OnSync,
    ) -> Result<(Self, OpeningReport), OpenError> {
        let lock = storage.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked,
            _ => OpenError::io("locking", "lock", error),
        })?;
        let (log, opened) = Log::open(storage, options, OpeningDraw::random(), unix_now_us())?;
        let shared = Arc::clone(log.catalog());
        let threads = Threads::start(log, options.limits.group_bytes(), on_sync);
        let threads = threads.map_err(|error| OpenError::io("starting a thread for", ".", error))?;
        Ok((Self { shared, threads, _lock: lock }, opened))
    }

    /// Returns where sessions append.
    #[must_use]
    pub fn appender(&self) -> Appender {
        self.threads.appender()
    }

    /// Returns the catalog, for the drain and for status reports.
    #[must_use]
    pub fn catalog(&self) -> &Arc<SharedCatalog> {
        &self.shared
    }

    /// Takes no more entries. Entries that were taken in are written, unless there is no room for them: their tickets fail then.
    pub fn stop_taking(&self) {
        self.threads.stop_taking();
    }

    /// Takes no more entries, writes and syncs those that were taken in, and ends the threads. Without room on the disk some
    /// of them may stay unwritten; their tickets fail then.
    ///
    /// # Errors
    /// When the journal failed.
    pub fn close(self) -> Result<(), Poisoned> {
        let Self { shared, threads, _lock } = self;
        drop(threads);
        let poisoned = shared.lock().poisoned.clone();
        poisoned.map_or(Ok(()), Err)
    }
}
