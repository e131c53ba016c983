//! Where a lane stands in its journal: the words that journal, drain and store share.

use std::fmt;

use uuid::Uuid;

/// Names one journal, for ever. Drawn at random when a journal is made, and again when it cannot vouch for its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JournalId(Uuid);

impl JournalId {
    /// A new name.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// From its 16 bytes on disk.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes that stand on disk.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// As the database keeps it.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a journal: grows with every entry, from 0, over the journal's whole life, at most `i64::MAX`. The place of
/// an entry is where it begins; a cursor is where the next entry begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A cursor, and what stands before it. A copied journal that went another way since has the same positions with other
/// content, and so has a virtual machine that was put back to a snapshot. The tag tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Everything before is done.
    pub position: Position,
    /// In the upper half, the random tag of the opening that appended the entry before `position`. In the lower half, a
    /// checksum of all entries before. 0 at the beginning. In journals of format 1, all of it is the opening's tag.
    pub tag: i64,
}

impl Mark {
    /// The beginning of every journal.
    pub const START: Self = Self { position: Position(0), tag: 0 };

    /// Whether the same opening appended the entries before both.
    #[must_use]
    pub const fn is_of_opening(self, other: Self) -> bool {
        self.tag >> 32 == other.tag >> 32
    }
}
