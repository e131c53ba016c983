//! The server: backends with their transactions, statements that wait to be looked at, and commits that nobody waits for any more.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use super::locks::{Lock, Locks, Mode, Until};
use super::tables::{Tables, Writes};
use super::{Fate, Flaw, Left, Waiting};
use crate::store::model::flag::FlagChange;
use crate::store::{ErrorClass, StoreError};

#[derive(Default)]
pub(super) struct Server {
    pub(super) tables: Tables,
    pub(super) backends: BTreeMap<u64, Backend>,
    pub(super) locks: Locks,
    pub(super) flaw: Option<Flaw>,
    /// Rows faster than this are refused.
    pub(super) fastest: Option<u16>,
    pub(super) refuses: Option<ErrorClass>,
    /// Counts transactions that changed something, and restores.
    pub(super) changes: u64,
    /// The sequence behind the ledger's versions; not rolled back with a transaction.
    pub(super) version: i64,
    pub(super) corrections: i64,
    /// Batches that were turned away because somebody else owns the lane.
    pub(super) fenced: u64,
    statements: BTreeMap<u64, Statement>,
    next: u64,
}

/// One session on the server's side.
#[derive(Debug, Default)]
pub(super) struct Backend {
    pub(super) writes: Writes,
    /// The commit was sent.
    committing: bool,
    /// Nobody is at the other end.
    left: bool,
}

#[derive(Debug)]
struct Statement {
    backend: u64,
    doing: &'static str,
    fate: Option<Fate>,
    waker: Waker,
}

/// Why a statement does not go on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// It waits for a lock.
    Wait(Lock),
    /// The server answers with this code, and ends the transaction.
    Fail(&'static str, Option<&'static str>),
}

impl Server {
    pub(super) fn connect(&mut self) -> Result<u64, StoreError> {
        if let Some(class) = self.refuses {
            return Err(StoreError::new(class, "connecting to the database", "it takes no connection"));
        }
        self.next += 1;
        self.backends.insert(self.next, Backend::default());
        Ok(self.next)
    }

    /// Sends a statement. It does nothing before somebody serves it.
    pub(super) fn send(&mut self, backend: u64, doing: &'static str) -> u64 {
        self.next += 1;
        let statement = Statement { backend, doing, fate: None, waker: Waker::noop().clone() };
        self.statements.insert(self.next, statement);
        self.next
    }

    pub(super) fn sent_commit(&mut self, backend: u64) {
        if let Some(backend) = self.backends.get_mut(&backend) {
            backend.committing = true;
        }
    }

    /// What becomes of a statement, once that is known.
    pub(super) fn fate(&mut self, statement: u64, context: &Context<'_>) -> Poll<Fate> {
        let Some(found) = self.statements.get_mut(&statement) else { return Poll::Ready(Fate::NotSent) };
        if let Some(fate) = found.fate {
            self.statements.remove(&statement);
            return Poll::Ready(fate);
        }
        found.waker.clone_from(context.waker());
        Poll::Pending
    }

    pub(super) fn forget(&mut self, statement: u64) {
        self.statements.remove(&statement);
    }

    pub(super) fn serve(&mut self, statement: u64, fate: Fate) {
        if let Some(found) = self.statements.get_mut(&statement) {
            found.fate = Some(fate);
            found.waker.wake_by_ref();
        }
    }

    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let unserved = self.statements.iter().filter(|(_, statement)| statement.fate.is_none());
        unserved.map(|(id, statement)| Waiting { statement: *id, doing: statement.doing }).collect()
    }

    pub(super) fn left(&self) -> Vec<Left> {
        let left = self.backends.iter().filter(|(_, backend)| backend.left);
        let standing = |(id, backend): (&u64, &Backend)| Left {
            backend: *id,
            committing: backend.committing,
            in_the_way: self.locks.is_in_the_way(*id),
        };
        left.map(standing).collect()
    }

    /// The transaction stands.
    pub(super) fn commit(&mut self, backend: u64) {
        if let Some(ended) = self.backends.get_mut(&backend) {
            self.tables.take(std::mem::take(&mut ended.writes));
            ended.committing = false;
            self.changes += 1;
        }
        self.locks.release(backend, Until::EndOfTransaction);
    }

    /// The transaction never was.
    pub(super) fn abort(&mut self, backend: u64) {
        if let Some(ended) = self.backends.get_mut(&backend) {
            (ended.writes, ended.committing) = (Writes::default(), false);
        }
        self.locks.release(backend, Until::EndOfTransaction);
    }

    /// The client is gone. The server notices later.
    pub(super) fn leave(&mut self, backend: u64) {
        self.locks.stop_waiting(backend);
        if let Some(backend) = self.backends.get_mut(&backend) {
            backend.left = true;
        }
    }

    /// The server notices that the client is gone, after a commit that had arrived or before.
    pub(super) fn end(&mut self, backend: u64, commits: bool) {
        if commits && self.backends.get(&backend).is_some_and(|backend| backend.committing) {
            self.commit(backend);
        }
        self.abort(backend);
        self.backends.remove(&backend);
        self.locks.release(backend, Until::EndOfSession);
        for statement in self.statements.values_mut().filter(|statement| statement.backend == backend) {
            statement.fate = Some(Fate::NotSent);
            statement.waker.wake_by_ref();
        }
    }

    pub(super) fn lock(&mut self, backend: u64, lock: Lock, mode: Mode, until: Until) -> Result<(), Stop> {
        if self.locks.take(backend, lock, mode, until) { Ok(()) } else { Err(Stop::Wait(lock)) }
    }

    /// A lock to the end of the transaction.
    pub(super) fn alone(&mut self, backend: u64, lock: Lock) -> Result<(), Stop> {
        self.lock(backend, lock, Mode::Alone, Until::EndOfTransaction)
    }

    /// What the transaction is about to change. A backend that has ended has nobody who reads it.
    pub(super) fn writes(&mut self, backend: u64) -> &mut Writes {
        &mut self.backends.entry(backend).or_default().writes
    }

    pub(super) fn declare(&mut self, change: FlagChange) {
        let held = self.tables.directus.entry(change.flag).or_insert_with(|| change.clone());
        if held.seq < change.seq {
            *held = change;
        }
    }
}
