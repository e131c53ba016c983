//! The random values of an opening.

use crate::position::{JournalId, Position};

/// The random values of an opening. They come from outside, so that a simulation can repeat itself.
#[derive(Clone, Copy, Debug)]
pub struct OpeningDraw {
    /// The id of a journal that is created now.
    pub id: JournalId,
    /// The tag of this opening; not 0.
    pub tag: i64,
    /// Where a journal begins that is created now: 0, except in tests of its end.
    pub begin: Position,
}

impl OpeningDraw {
    /// Draws from the system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        // Some bits of a random UUID are fixed and not 0, among them one of its first eight bytes.
        let [tag @ .., _, _, _, _, _, _, _, _] = JournalId::random().to_bytes();
        Self { id: JournalId::random(), tag: i64::from_le_bytes(tag), begin: Position(0) }
    }
}
