//! What an open journal holds, for those who read, release and compare. The writer shares it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::catalog::Catalog;
use super::chores;
use super::error::{Poisoned, ReadError};
use super::history::History;
use super::identity::{Identity, Origin};
use super::reader::Reader;
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
    /// There may be a chore.
    pub(super) chores: Condvar,
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
            chores: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Reads on from a position: that of an entry, or the end of the journal.
    ///
    /// # Errors
    /// When the position is not kept, or is none.
    pub fn reader(self: &Arc<Self>, from: Position) -> Result<Reader, ReadError> {
        Reader::new(Arc::clone(self), from)
    }

    /// Everything before `position` is committed: it is kept only for replay, and only while there is room and time.
    ///
    /// # Errors
    /// When the journal failed.
    pub fn release(&self, position: Position) -> Result<(), Poisoned> {
        self.lock_healthy()?.release(position);
        self.chores.notify_one();
        self.room.notify_one();
        Ok(())
    }

    /// Nothing from `position` on is committed, whatever was released before: the database went back. It survives a restart
    /// with the next group.
    ///
    /// # Errors
    /// When the journal failed.
    pub fn rewind(&self, position: Position) -> Result<(), Poisoned> {
        self.lock_healthy()?.rewind(position);
        Ok(())
    }

    /// The name that the database knows this journal by.
    #[must_use]
    pub fn id(&self) -> JournalId {
        self.identity().id
    }

    /// Takes a new id, durable before it returns, and holds everything that is kept for draining again. Positions stay.
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

    /// What it can vouch for, to compare a checkpoint with.
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

    /// Bound of the directory.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.lock().limits.max_bytes()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().status()
    }

    /// Does the most urgent chore, such as making a segment ahead of time; false when there is none. A journal with threads
    /// does its chores itself.
    pub fn chore(&self, now_us: i64) -> bool {
        let Some(chore) = self.lock().next_chore(now_us) else { return false };
        let done = chores::run(&*self.storage, self.origin, &chore);
        let mut catalog = self.lock();
        catalog.done(done, now_us);
        let failed = catalog.poisoned.is_some();
        if failed {
            self.tell(catalog);
        } else {
            drop(catalog);
        }
        self.room.notify_one();
        true
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first failure stays; everybody who waits is told.
    pub(super) fn poison(&self, poisoned: Poisoned) -> Poisoned {
        let mut catalog = self.lock();
        catalog.poison(poisoned.clone());
        self.tell(catalog);
        self.chores.notify_one();
        self.room.notify_one();
        poisoned
    }

    /// Tells those who wait to read.
    pub(super) fn tell(&self, mut catalog: MutexGuard<'_, Catalog>) {
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
