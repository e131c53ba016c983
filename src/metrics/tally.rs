//! Counts of AVL records on their way, of which every reading adds up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::QuarantineReason;

/// Counts of AVL records along the path. At any instant
/// `recovered + journaled = committed + duplicate + quarantined + waiting`.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// One reading of a [`Tally`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Found unreleased when the journal was opened, or to be drained again because the database went back.
    pub recovered: u64,
    /// Handed to the pipeline.
    pub journaled: u64,
    /// Stored as new rows.
    pub committed: u64,
    /// Found stored already.
    pub duplicate: u64,
    /// Put into quarantine, by [`QuarantineReason`].
    pub quarantined: [u64; QuarantineReason::ALL.len()],
    /// In the pipeline.
    pub waiting: u64,
    /// Told "accepted".
    pub acknowledged: u64,
}

impl Tally {
    /// Hands a frame over, and counts it if that succeeds: at one instant, so that no commit is counted ahead of it.
    pub(crate) fn journaled<T, E>(&self, records: u8, hand_over: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut counts = self.counts();
        let handed = hand_over()?;
        counts.journaled += u64::from(records);
        counts.waiting += u64::from(records);
        Ok(handed)
    }

    /// Records are in the pipeline that nobody handed over since the start: the journal held them, or the database lost them.
    pub fn recovered(&self, records: u64) {
        let mut counts = self.counts();
        counts.recovered += records;
        counts.waiting += records;
    }

    /// `quarantined` by [`QuarantineReason`].
    pub(crate) fn committed(&self, inserted: u64, duplicates: u64, quarantined: [u64; QuarantineReason::ALL.len()]) {
        let settled = inserted + duplicates + quarantined.iter().sum::<u64>();
        let mut counts = self.counts();
        counts.committed += inserted;
        counts.duplicate += duplicates;
        for (count, more) in counts.quarantined.iter_mut().zip(quarantined) {
            *count += more;
        }
        debug_assert!(settled <= counts.waiting, "more was committed than was handed over");
        counts.waiting = counts.waiting.saturating_sub(settled);
    }

    pub(crate) fn acknowledged(&self, records: u64) {
        self.counts().acknowledged += records;
    }

    /// The counts at one instant.
    #[must_use]
    pub fn read(&self) -> Counts {
        *self.counts()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
