//! What waits in the journal, for those who must not act as if it had arrived.

use super::clock::{self, WrongClock};
use super::shared::Draining;
use odograph_journal::ReadError;

/// Why nobody can say what waits.
#[derive(Debug, thiserror::Error)]
pub enum NotKnown {
    /// Receive times mean nothing then.
    #[error("this machine's clock cannot be right: {0:?}")]
    Clock(WrongClock),
    /// The database was not asked yet, or not by every lane. It may be behind what the journal has released.
    #[error("not every lane knows yet where the database stands")]
    Beginning,
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[source] ReadError),
}

impl Draining {
    /// Receive time of the oldest entry that may not be in the database, microseconds since 1970-01-01 UTC; `None` where all
    /// are. Read from the journal itself, so it is right also between two batches. Reads a group from the disk.
    ///
    /// # Errors
    /// When that cannot be said. Nothing may be concluded from it then.
    pub fn oldest_waiting_us(&self) -> Result<Option<i64>, NotKnown> {
        let newest_us = self.catalog.status().newest_us.filter(|_| !self.accept_clock);
        if let Some(wrong) = clock::judge((self.wall)(), newest_us) {
            return Err(NotKnown::Clock(wrong));
        }
        let mut tries = 0;
        loop {
            let done = self.committed_up_to().ok_or(NotKnown::Beginning)?;
            let first = || self.catalog.reader(done)?.next().map(|entry| entry.map(|entry| entry.entry.received_at_us));
            match first() {
                // It was committed, released and given away since.
                Err(ReadError::NotKept { .. }) if tries < TRIES => tries += 1,
                first => return first.map_err(NotKnown::Journal),
            }
        }
    }
}

const TRIES: u32 = 5;
