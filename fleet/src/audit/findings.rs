//! What an audit found.

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Acknowledged records, each counted once.
    pub acknowledged: u64,
    /// Of these, neither in the table nor in quarantine.
    pub missing: u64,
    /// Superfluous rows: of a record's device time, when that record has its row already.
    pub twice: u64,
    /// Rows with other values than sent, whether their records were acknowledged or not.
    pub wrong: u64,
    /// Rows of the fleet's trackers since its start that no record explains.
    pub unknown: u64,
    /// Acknowledged records that are in quarantine and not in the table. They are stored, so this breaks no promise.
    pub quarantined: u64,
    /// Rows of the fleet's trackers since its start, acknowledged or not.
    pub stored: u64,
    /// The first few missing, superfluous, wrong or unknown rows, in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// Whether the promise was kept.
    #[must_use]
    pub fn clean(&self) -> bool {
        (self.missing, self.twice, self.wrong, self.unknown) == (0, 0, 0, 0)
    }

    /// Adds an example unless there are enough.
    pub(super) fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(text());
        }
    }
}

const MAX_EXAMPLES: usize = 10;
