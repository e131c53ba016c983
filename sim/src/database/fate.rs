//! Statements that wait for their fate, and backends whose client is gone.

/// The fate of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is done, and answered.
    Done,
    /// It is done, and the connection breaks before the answer. A commit with this fate may be done or not.
    NotAnswered,
    /// The connection breaks before it.
    NotSent,
    /// The server chose its transaction as a victim, and answers that.
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
    /// Another session waits for its locks.
    pub in_the_way: bool,
}
