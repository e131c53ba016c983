//! What a journal can vouch for, and what to do about a checkpoint that says otherwise. A pure decision; the caller acts.

use crate::position::{Mark, Position};

/// Both ends of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    begin: Mark,
    end: Mark,
}

/// How a checkpoint of the database and a journal fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryMatch {
    /// Go on at the checkpoint.
    Agrees,
    /// The journal begins after the checkpoint: `bytes` of positions are missing. The operator must accept that.
    Gap {
        /// Length of what is missing.
        bytes: u64,
    },
    /// The checkpoint was not made from this journal as it is now: take a new id and drain all that is kept.
    Reidentify(HistoryMismatch),
}

/// Why a journal cannot go on under its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryMismatch {
    /// It ends before the checkpoint: it was put back from a copy, or lost its end.
    EndsBefore {
        /// Length of what was committed and is not here.
        bytes: u64,
    },
    /// Other entries stand before the checkpoint: it was copied and both went on, or a virtual machine was put back.
    OtherHistory,
}

impl History {
    pub(super) const fn new(begin: Mark, end: Mark) -> Self {
        Self { begin, end }
    }

    /// Where the oldest kept entry begins.
    #[must_use]
    pub fn begin(&self) -> Mark {
        self.begin
    }

    /// Where the next entry will begin.
    #[must_use]
    pub fn end(&self) -> Mark {
        self.end
    }

    /// Compares the checkpoint that the database holds. `tag_at` reads the tag of a kept position; `None` if no entry begins
    /// there.
    ///
    /// # Errors
    /// Those of `tag_at`.
    pub fn compare<E>(
        &self,
        checkpoint: Mark,
        tag_at: impl FnOnce(Position) -> Result<Option<i64>, E>,
    ) -> Result<HistoryMatch, E> {
        let at = checkpoint.position;
        if at > self.end.position {
            let bytes = at.0 - self.end.position.0;
            return Ok(HistoryMatch::Reidentify(HistoryMismatch::EndsBefore { bytes }));
        }
        if at < self.begin.position {
            return Ok(HistoryMatch::Gap { bytes: self.begin.position.0 - at.0 });
        }
        Ok(if tag_at(at)? == Some(checkpoint.tag) {
            HistoryMatch::Agrees
        } else {
            HistoryMatch::Reidentify(HistoryMismatch::OtherHistory)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn mark(position: u64, tag: i64) -> Mark {
        Mark { position: Position(position), tag }
    }

    /// Kept: 100 to 300. An entry begins at each hundred.
    fn compare(checkpoint: Mark) -> HistoryMatch {
        let tag_at = |position| match position {
            Position(at @ (100 | 200 | 300)) => Ok::<_, Infallible>(Some(at.cast_signed() / 100)),
            _ => Ok(None),
        };
        History::new(mark(100, 1), mark(300, 3)).compare(checkpoint, tag_at).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn a_checkpoint_of_this_journal_agrees() {
        for checkpoint in [mark(100, 1), mark(200, 2), mark(300, 3)] {
            assert_eq!(compare(checkpoint), HistoryMatch::Agrees);
        }
    }

    #[test]
    fn a_journal_that_ends_before_its_checkpoint_needs_a_new_id() {
        let ends_before = HistoryMatch::Reidentify(HistoryMismatch::EndsBefore { bytes: 10 });
        assert_eq!(compare(mark(310, 3)), ends_before);
    }

    #[test]
    fn a_journal_that_went_another_way_needs_a_new_id() {
        for checkpoint in [mark(100, 2), mark(200, 3), mark(300, 1), mark(250, 0)] {
            assert_eq!(compare(checkpoint), HistoryMatch::Reidentify(HistoryMismatch::OtherHistory));
        }
    }

    #[test]
    fn a_journal_that_begins_after_the_checkpoint_has_a_gap() {
        assert_eq!(compare(mark(60, 1)), HistoryMatch::Gap { bytes: 40 });
        assert_eq!(compare(Mark::START), HistoryMatch::Gap { bytes: 100 });
    }
}
