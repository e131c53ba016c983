//! A database in memory that does to a transaction all that a real one may do: what `FaultyDisk` is to files. Nothing is
//! durable.
//!
//! It implements the port of statements, so the scripts that drive it are the ones that ship. A statement waits until the
//! world serves it, with a fate: done, never sent, done and not answered, or a victim of others. A backend whose client is
//! gone stays, with its locks and perhaps with a commit that had arrived, until the world has the server notice.
//! Transactions see what is committed and their own writes (READ COMMITTED). They wait for row locks and advisory locks, and
//! a circle of waiting has a victim. Outside of a transaction each statement commits by itself.

mod batch_session;
mod flag_session;
mod locks;
mod mark_session;
mod server;
mod session;
mod tables;

use std::fmt;
use std::sync::MutexGuard;

use odograph::store::{ErrorClass, FlagChange};

use self::locks::Lock;
use self::server::Server;
pub use self::session::SimSession;
use self::session::{Shared, locked};
pub use self::tables::{Flagged, StoredRow, Tables};

/// The database. Clones are the same one.
#[derive(Clone, Default)]
pub struct SimDatabase {
    server: Shared,
}

/// What becomes of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is done, and answered.
    Done,
    /// It is done, and the connection breaks before the answer. Of a commit this says only that it is not answered.
    NotAnswered,
    /// The connection breaks before it.
    NotSent,
    /// The server chose its transaction as a victim, and says so.
    Victim,
}

/// A statement that waits to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// Its number.
    pub statement: u64,
    /// What it is about.
    pub doing: &'static str,
}

/// A backend whose client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    /// Its number.
    pub backend: u64,
    /// A commit was sent.
    pub committing: bool,
    /// Somebody waits for its locks.
    pub in_the_way: bool,
}

/// What a database is to do that none should: a simulation has to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Rows are inserted next to others of the same key.
    NoKey,
    /// The checkpoint is read without any lock, and no session owns a lane.
    PlainFence,
    /// A batch looks for flags without keeping the ledger as it is.
    PlainLedger,
    /// Of two changes of a flag the one that comes later wins.
    NoSeq,
    /// A connection never looks at what is newer in the ledger than its first look.
    NoVersion,
    /// Latest positions are written by arrival.
    LatestByArrival,
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
    pub fn waiting(&self) -> Vec<Waiting> {
        self.server().waiting()
    }

    /// Has a statement met its fate.
    pub fn serve(&self, statement: u64, fate: Fate) {
        self.server().serve(statement, fate);
    }

    /// Backends whose client is gone.
    #[must_use]
    pub fn left(&self) -> Vec<Left> {
        self.server().left()
    }

    /// The server notices that a client is gone; a commit that was sent had arrived or had not.
    pub fn end(&self, backend: u64, commits: bool) {
        self.server().end(backend, commits);
    }

    /// All sessions end at once; each commit that was sent had arrived or had not.
    pub fn restart(&self, mut commits: impl FnMut() -> bool) {
        let mut server = self.server();
        let backends: Vec<_> = server.backends.keys().copied().collect();
        for backend in backends {
            server.end(backend, commits());
        }
    }

    /// Takes no new connection, for a reason of this class, or does so again.
    pub fn refuse(&self, class: Option<ErrorClass>) {
        self.server().refuses = class;
    }

    /// Refuses rows that are faster, as a check that somebody added would.
    pub fn refuse_faster_than(&self, kmh: Option<u16>) {
        self.server().fastest = kmh;
    }

    /// A trigger that drops every inserted row appears or goes. Tells whether it did: CREATE TRIGGER waits for transactions
    /// that have inserted rows.
    ///
    /// Between the guard of a transaction and its rows PostgreSQL would let the trigger appear, and the guard would not see
    /// it. That is known and open, so it does not happen here.
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

    /// What a client did against the contract of the port, if any did.
    #[must_use]
    pub fn breach(&self) -> Option<String> {
        self.server().breach.clone()
    }

    /// What it holds now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let server = self.server();
        Snapshot { tables: server.tables.clone(), version: server.version }
    }

    /// Goes back to what it held. The sessions end.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.restart(|| false);
        let mut server = self.server();
        (server.tables, server.version) = (snapshot.tables.clone(), snapshot.version);
        server.changes += 1;
    }

    /// A marshal's word, as Directus' side keeps it.
    pub fn declare(&self, change: FlagChange) {
        self.server().declare(change);
    }

    /// Looks at what is committed.
    pub fn look<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.server().tables)
    }

    /// Grows with each transaction that is committed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.server().changes
    }

    /// How many batches were turned away because somebody else owns their lane.
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

impl fmt::Debug for SimDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDatabase").finish_non_exhaustive()
    }
}
