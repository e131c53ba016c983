//! What an open journal holds, behind one lock: for the writer, and for everything that reads, releases and compares.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::catalog::Catalog;
use super::error::Poisoned;
use super::history::History;
use super::identity::{Identity, Origin};
use super::segment_tasks;
use super::status::Status;
use super::storage::Storage;
use crate::position::{JournalId, Position};

/// The catalog of an open journal: the truth about what it holds, behind one lock.
#[derive(Debug)]
pub struct SharedCatalog {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) origin: Origin,
    identity: Mutex<Identity>,
    catalog: Mutex<Catalog>,
    /// Entries were synced, or never will be.
    pub(super) synced: Condvar,
    /// There may be a segment task.
    pub(super) tasks: Condvar,
    /// There may be room.
    pub(super) room: Condvar,
}

impl SharedCatalog {
    pub(super) fn new(storage: Arc<dyn Storage>, identity: Identity, catalog: Catalog) -> Self {
        Self {
            storage,
            origin: identity.origin,
            identity: Mutex::new(identity),
            catalog: Mutex::new(catalog),
            synced: Condvar::new(),
            tasks: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Notes that everything before `position` is committed. It is kept only for replay, as long as there is room and time.
    ///
    /// # Errors
    /// When the journal failed.
    pub fn release(&self, position: Position) -> Result<(), Poisoned> {
        self.lock_healthy()?.release(position);
        self.tasks.notify_one();
        self.room.notify_one();
        Ok(())
    }

    /// Notes that nothing from `position` on is committed, whatever was released before: the database went back. The note is
    /// durable with the next group.
    ///
    /// # Errors
    /// When the journal failed.
    pub fn rewind(&self, position: Position) -> Result<(), Poisoned> {
        self.lock_healthy()?.rewind(position);
        Ok(())
    }

    /// The id under which the database knows this journal.
    #[must_use]
    pub fn id(&self) -> JournalId {
        self.identity().id
    }

    /// Takes a new id, which is durable before this returns, and keeps everything for draining again. Positions stay.
    ///
    /// # Errors
    /// When the identity cannot be written; the journal has failed then.
    pub fn reidentify(&self, id: JournalId) -> Result<(), Poisoned> {
        self.rewind(Position(0))?;
        let mut identity = self.identity();
        let new = Identity { id, ..*identity };
        new.write(&*self.storage).map_err(|error| self.poison(Poisoned::new("taking a new id", error)))?;
        *identity = new;
        Ok(())
    }

    /// Names the content of all copies of this journal up to a place with this tag: other content has another name. It stays
    /// when the journal takes a new id.
    #[must_use]
    pub fn content_id(&self, tag: i64) -> Uuid {
        self.origin.content_id(tag)
    }

    /// What the journal holds evidence for, to compare with a checkpoint.
    #[must_use]
    pub fn history(&self) -> History {
        self.lock().history()
    }

    /// Where the segment begins that holds the entry before `position`: an entry begins there.
    #[must_use]
    pub fn segment_before(&self, position: Position) -> Position {
        let catalog = self.lock();
        let segment = catalog.segments.iter().rev().find(|segment| segment.start.position < position);
        segment.map_or(catalog.begin().position, |segment| segment.start.position)
    }

    /// Maximum size of the directory.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.lock().limits.max_bytes()
    }

    /// The state of the journal.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().status()
    }

    /// Runs the most urgent segment task, such as creating a segment ahead of time. Returns false if there is none. A journal with threads
    /// does its tasks itself.
    pub fn run_task(&self, now_us: i64) -> bool {
        let Some(task) = self.lock().next_task(now_us) else { return false };
        let done = segment_tasks::run(&*self.storage, self.origin, &task);
        let mut catalog = self.lock();
        catalog.finish_task(done, now_us);
        let failed = catalog.poisoned.is_some();
        if failed {
            self.wake_readers(catalog);
        } else {
            drop(catalog);
        }
        self.room.notify_one();
        true
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the first failure, and wakes everyone who waits.
    pub(super) fn poison(&self, poisoned: Poisoned) -> Poisoned {
        let mut catalog = self.lock();
        catalog.poison(poisoned.clone());
        self.wake_readers(catalog);
        self.tasks.notify_one();
        self.room.notify_one();
        poisoned
    }

    /// Wakes everyone who waits to read.
    pub(super) fn wake_readers(&self, mut catalog: MutexGuard<'_, Catalog>) {
        let readers = std::mem::take(&mut catalog.readers);
        drop(catalog);
        self.synced.notify_all();
        for reader in readers {
            reader.wake();
        }
    }

    fn lock_healthy(&self) -> Result<MutexGuard<'_, Catalog>, Poisoned> {
        let catalog = self.lock();
        match &catalog.poisoned {
            Some(poisoned) => Err(poisoned.clone()),
            None => Ok(catalog),
        }
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
