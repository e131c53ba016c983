//! The server: backends with their transactions, statements that wait for their fate, and commits whose client is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use odograph::store::{ErrorClass, FlagChange, StoreError};

use super::fate::{AbandonedBackend, Fate, PendingStatement};
use super::flaw::Flaw;
use super::locks::{Lock, Locks, Mode, Until};
use super::tables::{Place, Tables, Writes};

/// The server, shared.
pub(super) type Shared = Arc<Mutex<Server>>;

pub(super) fn locked(server: &Shared) -> MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) tables: Tables,
    pub(super) backends: BTreeMap<u64, Backend>,
    pub(super) locks: Locks,
    pub(super) flaw: Option<Flaw>,
    /// Rows faster than this are refused.
    pub(super) fastest: Option<u16>,
    pub(super) refuses: Option<ErrorClass>,
    /// A trigger drops every inserted row.
    pub(super) drops_rows: bool,
    /// What a client did against the contract of the port.
    pub(super) breach: Option<String>,
    /// Counts transactions that changed something, and restores.
    pub(super) changes: u64,
    /// The sequence behind the ledger's versions; not rolled back with a transaction.
    pub(super) version: i64,
    pub(super) corrections: i64,
    /// Batches that were refused because another session owns the lane.
    pub(super) fenced: u64,
    statements: BTreeMap<u64, Statement>,
    next: u64,
}

/// One session on the server's side.
#[derive(Debug, Default)]
pub(super) struct Backend {
    writes: Writes,
    /// As they were at the savepoint.
    savepoint: Option<Writes>,
    pub(super) in_transaction: bool,
    /// The checkpoint that the transaction has read under its lock.
    pub(super) fence: Option<Place>,
    /// The transaction has searched for triggers.
    pub(super) is_guarded: bool,
    /// The first version of the ledger that the session has read.
    pub(super) first_version: Option<i64>,
    /// The commit was sent.
    committing: bool,
    client: Client,
}

/// The client of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Client {
    #[default]
    Connected,
    /// It is gone, and the server has not noticed.
    Gone,
}

#[derive(Debug)]
struct Statement {
    backend: u64,
    doing: &'static str,
    fate: Option<Fate>,
    waker: Waker,
}

/// Why a statement stops.
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

    /// Sends a statement. It does nothing before it is served.
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

    /// Returns the fate of a statement, once it is decided.
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

    pub(super) fn waiting(&self) -> Vec<PendingStatement> {
        let unserved = self.statements.iter().filter(|(_, statement)| statement.fate.is_none());
        unserved.map(|(id, statement)| PendingStatement { statement: *id, doing: statement.doing }).collect()
    }

    pub(super) fn left(&self) -> Vec<AbandonedBackend> {
        let left = self.backends.iter().filter(|(_, backend)| backend.client == Client::Gone);
        let described = |(id, backend): (&u64, &Backend)| AbandonedBackend {
            backend: *id,
            committing: backend.committing,
            in_the_way: self.locks.is_in_the_way(*id),
        };
        left.map(described).collect()
    }

    /// Commits the transaction.
    pub(super) fn commit(&mut self, backend: u64) {
        if let Some(ended) = self.backends.get_mut(&backend) {
            let writes = std::mem::take(&mut ended.writes);
            // The corrected stream reports every change that a flag makes.
            if !writes.applied.is_empty() && !writes.marks.is_empty() && writes.corrections.is_empty() {
                self.breach.get_or_insert("positions changed without a correction".to_owned());
            }
            ended.end_transaction();
            if writes != Writes::default() {
                self.tables.take(writes);
                self.changes += 1;
            }
        }
        self.locks.release(backend, Until::EndOfTransaction);
    }

    /// Rolls the transaction back.
    pub(super) fn abort(&mut self, backend: u64) {
        if let Some(ended) = self.backends.get_mut(&backend) {
            ended.end_transaction();
        }
        self.locks.release(backend, Until::EndOfTransaction);
    }

    /// The client is gone. The server notices later.
    pub(super) fn leave(&mut self, backend: u64) {
        self.locks.stop_waiting(backend);
        if let Some(backend) = self.backends.get_mut(&backend) {
            backend.client = Client::Gone;
        }
    }

    /// Ends a session whose client is gone. A commit that was sent had arrived, or had not.
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

    /// Takes an exclusive lock until the transaction ends.
    pub(super) fn alone(&mut self, backend: u64, lock: Lock) -> Result<(), Stop> {
        self.lock(backend, lock, Mode::Alone, Until::EndOfTransaction)
    }

    /// Returns a backend. One that has ended is made again, and no client reads it.
    pub(super) fn backend(&mut self, backend: u64) -> &mut Backend {
        self.backends.entry(backend).or_default()
    }

    /// Returns the uncommitted changes of the transaction.
    pub(super) fn writes_of(&mut self, backend: u64) -> &mut Writes {
        &mut self.backend(backend).writes
    }

    /// Checks that the fence was read before a write of a batch. Otherwise a superseded owner would hold up the new
    /// one, and rows of its commit in doubt would pass for rows of another session.
    pub(super) fn writes(&mut self, backend: u64, what: &str) {
        if self.backend(backend).fence.is_none() {
            self.breach.get_or_insert(format!("{what} written before the fence was read"));
        }
    }

    /// Checks that only one transaction of a lane is past its fence: the result of an earlier one is settled.
    pub(super) fn passes_fence(&mut self, backend: u64, place: Place) {
        let mut others = self.backends.iter().filter(|(other, _)| **other != backend);
        if others.any(|(_, other)| other.fence == Some(place)) {
            self.breach.get_or_insert("two transactions past the fence of one lane".to_owned());
        }
    }

    /// Checks for a transaction. Without one a lock ends with its statement, and changes that belong together commit
    /// one by one.
    pub(super) fn belongs_in_transaction(&mut self, backend: u64, what: &str) {
        if !self.backend(backend).in_transaction {
            self.breach.get_or_insert(format!("{what} outside of a transaction"));
        }
    }

    /// Checks the same as `writes`, and that a slow write does not run under the lock of the ledger: flags wait for it.
    pub(super) fn writes_slowly(&mut self, backend: u64, what: &str) {
        self.writes(backend, what);
        if self.locks.holds(backend, Lock::Ledger) {
            self.breach.get_or_insert(format!("{what} written under the lock of the ledger"));
        }
    }

    pub(super) fn declare(&mut self, change: FlagChange) {
        let held = self.tables.directus.entry(change.flag).or_insert_with(|| change.clone());
        if held.seq < change.seq {
            *held = change;
        }
    }
}

impl Backend {
    pub(super) fn set_savepoint(&mut self) {
        self.savepoint = Some(self.writes.clone());
    }

    pub(super) fn drop_savepoint(&mut self) {
        self.savepoint = None;
    }

    pub(super) fn undo_to_savepoint(&mut self) {
        if let Some(writes) = self.savepoint.take() {
            self.writes = writes;
        }
    }

    pub(super) const fn has_savepoint(&self) -> bool {
        self.savepoint.is_some()
    }

    fn end_transaction(&mut self) {
        let Self { writes, savepoint, in_transaction, fence, is_guarded, first_version: _, committing, client: _ } =
            self;
        (*writes, *savepoint, *in_transaction, *fence) = (Writes::default(), None, false, None);
        (*is_guarded, *committing) = (false, false);
    }
}
