//! The database as its clients and the world see it.

use std::fmt;
use std::sync::{Arc, MutexGuard};

use odograph::store::{Connect, ErrorClass, FlagChange, StoreError};

use super::fate::{AbandonedBackend, Fate, PendingStatement};
use super::flaw::Flaw;
use super::locks::Lock;
use super::server::{Server, Shared, locked};
use super::session::SimSession;
use super::tables::Tables;

/// The database. Clones are the same one.
#[derive(Clone, Default)]
pub struct SimDatabase {
    server: Shared,
}

/// What a database held at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    tables: Tables,
    version: i64,
}

impl SimDatabase {
    /// An empty database with its schema.
    #[must_use]
    pub fn new(flaw: Option<Flaw>) -> Self {
        let database = Self::default();
        database.server().flaw = flaw;
        database
    }

    /// Statements that wait, in the order in which they were sent.
    #[must_use]
    pub fn waiting(&self) -> Vec<PendingStatement> {
        self.server().waiting()
    }

    /// Decides the fate of a statement.
    pub fn serve(&self, statement: u64, fate: Fate) {
        self.server().serve(statement, fate);
    }

    /// Backends whose client is gone.
    #[must_use]
    pub fn left(&self) -> Vec<AbandonedBackend> {
        self.server().left()
    }

    /// Ends a session whose client is gone. A commit that was sent had arrived, or had not.
    pub fn end(&self, backend: u64, commits: bool) {
        self.server().end(backend, commits);
    }

    /// Ends all sessions at once. Each commit that was sent had arrived, or had not.
    pub fn restart(&self, mut commits: impl FnMut() -> bool) {
        let mut server = self.server();
        let backends: Vec<_> = server.backends.keys().copied().collect();
        for backend in backends {
            server.end(backend, commits());
        }
    }

    /// Refuses new connections with an error of this class, or accepts them again.
    pub fn refuse(&self, class: Option<ErrorClass>) {
        self.server().refuses = class;
    }

    /// Refuses rows that are faster, as an added CHECK would.
    pub fn refuse_faster_than(&self, kmh: Option<u16>) {
        self.server().fastest = kmh;
    }

    /// Adds or removes a trigger that drops every inserted row. Returns whether it could: CREATE TRIGGER waits for
    /// transactions that have inserted rows.
    ///
    /// Between the guard of a transaction and its rows PostgreSQL would let the trigger appear, and the guard would not
    /// see it. That is known and open, so it does not happen here.
    #[must_use]
    pub fn drop_rows(&self, drops: bool) -> bool {
        let mut server = self.server();
        let guarded = server.backends.values().any(|backend| backend.is_guarded);
        let free = !server.locks.is_held(Lock::Table) && !guarded;
        if free {
            server.drops_rows = drops;
        }
        free
    }

    /// Returns what a client did against the contract of the port, if any did.
    #[must_use]
    pub fn breach(&self) -> Option<String> {
        self.server().breach.clone()
    }

    /// Returns a copy of the content.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let server = self.server();
        Snapshot { tables: server.tables.clone(), version: server.version }
    }

    /// Goes back to an earlier content. The sessions end.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.restart(|| false);
        let mut server = self.server();
        (server.tables, server.version) = (snapshot.tables.clone(), snapshot.version);
        server.changes += 1;
    }

    /// Writes a marshal's change into Directus' table.
    pub fn declare(&self, change: FlagChange) {
        self.server().declare(change);
    }

    /// Reads the committed content.
    pub fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        read(&self.server().tables)
    }

    /// Returns a number that grows with each committed transaction.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.server().changes
    }

    /// Returns the number of batches that were refused because another session owns their lane.
    #[must_use]
    pub fn fenced(&self) -> u64 {
        self.server().fenced
    }

    pub(crate) fn note_fenced(&self) {
        self.server().fenced += 1;
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        locked(&self.server)
    }
}

impl Connect for SimDatabase {
    type Session = SimSession;

    async fn connect(&mut self) -> Result<SimSession, StoreError> {
        let backend = self.server().connect()?;
        Ok(SimSession::new(Arc::clone(&self.server), backend))
    }
}

impl fmt::Debug for SimDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDatabase").finish_non_exhaustive()
    }
}
