//! What a journal can vouch for, and what to do about a checkpoint that says otherwise. A pure decision; the caller acts.

use crate::position::{Mark, Position};

/// Which opening appended what, for everything that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    begin: Mark,
    end: Mark,
    /// Stretches of one tag: from, to, tag. Damage leaves holes.
    runs: Vec<(Position, Position, i64)>,
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
    /// Another opening appended what stands before the checkpoint: it was copied, and both went on.
    OtherHistory,
}

impl History {
    pub(super) fn new(begin: Mark, end: Mark, segments: impl Iterator<Item = (Mark, Position, i64)>) -> Self {
        let runs = segments.map(|(start, end, tag)| (start.position, end, tag)).filter(|(from, to, _)| from < to);
        Self { begin, end, runs: runs.collect() }
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

    /// The tag of the opening that appended the entry before `position`; `None` outside of what is kept.
    #[must_use]
    pub fn tag_at(&self, position: Position) -> Option<i64> {
        for mark in [self.begin, self.end] {
            if mark.position == position {
                return Some(mark.tag);
            }
        }
        let after = self.runs.partition_point(|(_, to, _)| *to < position);
        self.runs.get(after).filter(|(from, _, _)| *from < position).map(|(_, _, tag)| *tag)
    }

    /// Compares the checkpoint that the database holds.
    #[must_use]
    pub fn compare(&self, checkpoint: Mark) -> HistoryMatch {
        let at = checkpoint.position;
        if at > self.end.position {
            return HistoryMatch::Reidentify(HistoryMismatch::EndsBefore { bytes: at.0 - self.end.position.0 });
        }
        if at < self.begin.position {
            return HistoryMatch::Gap { bytes: self.begin.position.0 - at.0 };
        }
        if self.tag_at(at) == Some(checkpoint.tag) {
            HistoryMatch::Agrees
        } else {
            HistoryMatch::Reidentify(HistoryMismatch::OtherHistory)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(position: u64, tag: i64) -> Mark {
        Mark { position: Position(position), tag }
    }

    /// Kept: 100 to 300, by the openings 7, 7 and 8; what stood before 100 was appended by 5.
    fn history() -> History {
        let segments = [(100, 150, 7), (150, 200, 7), (200, 200, 9), (200, 300, 8)];
        let segments = segments.map(|(from, to, tag)| (mark(from, 0), Position(to), tag));
        History::new(mark(100, 5), mark(300, 8), segments.into_iter())
    }

    #[test]
    fn every_kept_position_has_the_tag_of_the_entry_before_it() {
        for (position, tag) in [
            (99, None),
            (100, Some(5)),
            (101, Some(7)),
            (150, Some(7)),
            (200, Some(7)),
            (201, Some(8)),
            (300, Some(8)),
            (301, None),
        ] {
            assert_eq!(history().tag_at(Position(position)), tag, "at {position}");
        }
    }

    #[test]
    fn a_checkpoint_of_this_journal_agrees() {
        for checkpoint in [mark(100, 5), mark(120, 7), mark(200, 7), mark(300, 8)] {
            assert_eq!(history().compare(checkpoint), HistoryMatch::Agrees);
        }
        let empty = History::new(Mark::START, Mark::START, std::iter::empty());
        assert_eq!(empty.compare(Mark::START), HistoryMatch::Agrees);
    }

    #[test]
    fn a_journal_that_ends_before_its_checkpoint_needs_a_new_id() {
        assert_eq!(
            history().compare(mark(310, 8)),
            HistoryMatch::Reidentify(HistoryMismatch::EndsBefore { bytes: 10 })
        );
        let empty = History::new(Mark::START, Mark::START, std::iter::empty());
        assert_eq!(empty.compare(mark(1, 8)), HistoryMatch::Reidentify(HistoryMismatch::EndsBefore { bytes: 1 }));
    }

    #[test]
    fn a_journal_that_went_another_way_needs_a_new_id() {
        for checkpoint in [mark(100, 7), mark(200, 8), mark(300, 7), mark(250, 0)] {
            assert_eq!(history().compare(checkpoint), HistoryMatch::Reidentify(HistoryMismatch::OtherHistory));
        }
    }

    #[test]
    fn a_journal_that_begins_after_the_checkpoint_has_a_gap() {
        assert_eq!(history().compare(mark(60, 1)), HistoryMatch::Gap { bytes: 40 });
        assert_eq!(history().compare(Mark::START), HistoryMatch::Gap { bytes: 100 });
    }

    #[test]
    fn a_checkpoint_in_a_hole_left_by_damage_needs_a_new_id() {
        let segments = [(mark(0, 0), Position(10), 1), (mark(20, 1), Position(30), 2)];
        let history = History::new(Mark::START, mark(30, 2), segments.into_iter());
        assert_eq!(history.compare(mark(15, 1)), HistoryMatch::Reidentify(HistoryMismatch::OtherHistory));
    }
}
