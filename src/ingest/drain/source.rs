//! Where a lane's entries come from: the journal, or the intake itself if there is no journal.

use tokio::time::Instant;

use super::builder::BatchBuilder;
use super::clock::ImplausibleClock;
use crate::ingest::intake::ENTRY_COST;
use crate::lane::Lane;
use crate::store::{Checkpoint, Committed};
use odograph_journal::{Mark, NewEntry, Poisoned, ReadError, unix_now_us};

/// The entries of one lane, in order.
pub trait EntrySource {
    /// Whether entries outlive the process, so that unwritten latest positions can be built again from them.
    const IS_REPLAYABLE: bool;

    /// The lane, under the journal's current id.
    fn lane(&self) -> Lane;

    /// Moves to the checkpoint that the database holds for `lane`, and teaches `builder` what came before it. Returns `None` if the
    /// journal took a new id meanwhile: look up the new lane and call again.
    fn seek(&mut self, lane: Lane, at: Checkpoint, builder: &mut BatchBuilder) -> Result<Option<()>, SourceError>;

    /// Whether the lane still belongs to the journal's current id.
    fn is_current(&self) -> bool;

    /// Adds waiting entries to the batch, as far as the load may grow.
    fn fill(&mut self, builder: &mut BatchBuilder, load: &mut BatchLoad) -> Result<(), SourceError>;

    /// Waits until there may be more entries, or never will be. Cancel-safe.
    fn more(&mut self) -> impl Future<Output = ()> + Send;

    /// Whether every entry was given and nothing more will come.
    fn is_over(&self) -> bool;

    /// The span of the batch: where it begins and where it ends. Both are equal if it is empty.
    fn span(&self) -> (Mark, Mark);

    /// The checkpoint of the lane, as far as this process knows.
    fn checkpoint(&self) -> Checkpoint;

    /// The database still holds this checkpoint.
    fn checkpoint_confirmed(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    /// The batch is committed; `at` is the new checkpoint.
    fn committed(&mut self, at: Checkpoint, proof: &Committed) -> Result<(), SourceError>;

    /// The batch will not be committed as it is: gives its entries again.
    fn abandon(&mut self) -> Result<(), SourceError>;

    /// The database refuses the batch, which is one frame. Sets the frame aside; returns whether others can go on without it.
    fn set_aside(&mut self) -> bool;

    /// Whether unwritten latest positions before `to` hold back so much from being released that they should be written now.
    fn is_pressed(&self, _to: Mark) -> bool {
        false
    }

    /// Whether the batch is a frame that was set aside before.
    fn is_second_try(&self) -> bool {
        false
    }

    /// Another process writes under the lane's id.
    fn fenced(&mut self) {}

    /// This machine's wall clock, microseconds since 1970-01-01 UTC.
    fn wall_us(&self) -> i64 {
        unix_now_us()
    }

    /// Whether the operator says that this machine's clock is right, whatever it shows.
    fn accepts_clock(&self) -> bool {
        false
    }

    /// Looks at this machine's clock. Returns why it cannot be right, if so.
    fn implausible_clock(&mut self) -> Option<ImplausibleClock> {
        None
    }

    /// The database server's clock agreed with this machine's, which was `wall_us` at `at`.
    fn clock_is_verified(&mut self, _wall_us: i64, _at: Instant) {}
}

/// The size of a batch, and its limits.
#[derive(Clone, Copy, Debug)]
pub struct BatchLoad {
    pub(super) frames: usize,
    rows: usize,
    bytes: usize,
    most_frames: usize,
    most_rows: usize,
}

impl BatchLoad {
    pub(super) fn new(most_frames: usize, most_rows: usize) -> Self {
        Self { frames: 0, rows: 0, bytes: 0, most_frames, most_rows }
    }

    pub(super) fn add(&mut self, entry: &NewEntry<'_>) {
        self.frames += 1;
        self.rows += usize::from(entry.records);
        self.bytes += entry.bytes.len() + ENTRY_COST;
    }

    /// Lets nothing else into the batch.
    pub(super) fn close(&mut self) {
        self.most_frames = self.frames;
    }

    pub(super) fn is_full(&self) -> bool {
        self.frames >= self.most_frames || self.rows >= self.most_rows || self.bytes >= BATCH_BYTES
    }
}

/// The source cannot continue. The process ends, and opening the journal says more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// An entry cannot be read.
    #[error("the journal cannot be read")]
    Read(#[from] ReadError),
    /// The journal failed.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// Maximum cost of the entries of a batch in bytes: neither frames full of rare elements nor a flood of tiny ones may grow
/// it without bound.
const BATCH_BYTES: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use teltonika_codecs::Imei;

    use super::*;
    use odograph_journal::EntryKind;

    #[test]
    fn tiny_entries_fill_a_batch_too() {
        let imei = Imei::try_from(1).unwrap();
        let taken = |bytes: &[u8]| {
            let entry = NewEntry { kind: EntryKind::Undecodable, imei, received_at_us: 0, records: 0, bytes };
            let mut load = BatchLoad::new(usize::MAX, 50_000);
            while !load.is_full() {
                load.add(&entry);
            }
            load.frames
        };
        assert!(taken(&[]) <= BATCH_BYTES / ENTRY_COST);
        assert!(taken(&[0; 1_000]) < taken(&[0; 10]));
        // Frames with one record each reach the default of rows first.
        assert!(taken(&[0; 60]) > 50_000);
    }
}
