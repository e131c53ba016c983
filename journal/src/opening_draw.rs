//! The random values of an opening.

use crate::position::{JournalId, Position};

/// The random values of an opening. They come from outside, so that a simulation can repeat itself.
#[derive(Clone, Copy, Debug)]
pub struct OpeningDraw {
    /// The id of a journal that is created now.
    pub id: JournalId,
    /// The tag of this opening; not 0.
    pub tag: u32,
    /// Where a journal begins that is created now: 0, except in tests of its end.
    pub begin: Position,
}

impl OpeningDraw {
    /// Draws from the system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        Self { id: JournalId::random(), tag: fastrand::u32(1..), begin: Position(0) }
    }
}
