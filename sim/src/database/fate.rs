//! Statements that wait for their fate, and backends whose client is gone.

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
pub struct PendingStatement {
    /// Its number.
    pub statement: u64,
    /// What it is about.
    pub doing: &'static str,
}

/// A backend whose client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbandonedBackend {
    /// Its number.
    pub backend: u64,
    /// A commit was sent.
    pub committing: bool,
    /// Somebody waits for its locks.
    pub in_the_way: bool,
}
