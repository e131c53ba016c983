//! The numbers and states that a journal shows.

use crate::position::Position;

/// Whether the journal takes entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JournalState {
    /// It does.
    Open,
    /// It has no room; appending waits. It ends by itself.
    Full(FullCause),
    /// It failed, and the process must end.
    Poisoned,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FullCause {
    /// What is not committed has reached the bound of the directory. It ends below 90 % of that.
    Limit,
    /// The file system has no space, or its quota is used up.
    NoSpace,
}

/// How a journal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it takes entries.
    pub state: JournalState,
    /// Where the oldest kept entry begins.
    pub begin: Position,
    /// Everything before is committed.
    pub released: Position,
    /// Everything before is synced.
    pub end: Position,
    /// Bytes on disk that are not committed.
    pub uncommitted_bytes: u64,
    /// Bytes on disk that are committed and kept for replay.
    pub kept_bytes: u64,
    /// Bound of the directory.
    pub max_bytes: u64,
    /// Segments that hold something.
    pub segments: usize,
    /// The newest receive time that is kept.
    pub newest_us: Option<i64>,
    /// Groups synced since opening.
    pub groups: u64,
    /// Entries synced since opening.
    pub entries: u64,
    /// Committed segments given up before their time since opening.
    pub keep_shortened: u64,
    /// Bytes of positions that were lost to damage and skipped, by opening and by reading.
    pub damage_skipped_bytes: u64,
}
