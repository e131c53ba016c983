//! Where a lane's entries come from: the journal, or, where there is none, the intake itself.

use super::builder::BatchBuilder;
use crate::store::{Checkpoint, Committed, Lane};
use odograph_journal::Mark;
use odograph_journal::{NewEntry, Poisoned, ReadError};

/// The entries of one lane, in order.
pub trait Feed {
    /// Whether entries outlive the process, so that what was not written yet can be built anew from them.
    const LASTS: bool;

    /// The lane, under the journal's present id.
    fn lane(&self) -> Lane;

    /// The database says where that lane stands: goes there. What it skips was committed, and what it comes back to was not;
    /// the builder gets to know what stands before. `None`: the journal has a new id, so ask for its lane.
    fn begin(&mut self, lane: Lane, at: Checkpoint, builder: &mut BatchBuilder) -> Result<Option<()>, FeedError>;

    /// Whether the lane is still that of the journal's present id.
    fn is_current(&self) -> bool;

    /// Adds what is there to the batch that is being built, as far as the load may grow.
    fn fill(&mut self, builder: &mut BatchBuilder, load: &mut Load) -> Result<(), FeedError>;

    /// Waits until there may be more, or nothing ever will. Dropping it loses nothing.
    fn more(&mut self) -> impl Future<Output = ()> + Send;

    /// Nothing will come any more, and everything was given.
    fn is_over(&self) -> bool;

    /// Where the batch begins and where it ends; equal where there is nothing.
    fn span(&self) -> (Mark, Mark);

    /// Where the lane stands in the database.
    fn stands(&self) -> Checkpoint;

    /// The database has confirmed that the lane stands there.
    fn confirmed(&mut self) -> Result<(), FeedError> {
        Ok(())
    }

    /// The batch is committed, and the lane stands there now.
    fn committed(&mut self, at: Checkpoint, proof: &Committed) -> Result<(), FeedError>;

    /// The batch will not be committed as it is: its entries are given again.
    fn abandon(&mut self) -> Result<(), FeedError>;

    /// The database answers and does not take the batch, which is one frame. Whether others can go on without it.
    fn set_aside(&mut self) -> bool;

    /// Whether so much is held back from being released, for the sake of newest positions before `to`, that they should be
    /// written now.
    fn is_pressed(&self, _to: Mark) -> bool {
        false
    }

    /// Whether the batch is a frame that was set aside before, tried once more.
    fn is_second_try(&self) -> bool {
        false
    }

    /// Somebody else writes under the lane's id.
    fn fenced(&mut self) {}

    /// Whether the machine's clock can be right. Looks now and then.
    fn clock_is_wrong(&mut self) -> bool {
        false
    }
}

/// What a batch carries, and what it may carry.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub(super) frames: usize,
    rows: usize,
    bytes: usize,
    most_frames: usize,
    most_rows: usize,
}

impl Load {
    pub(super) fn new(most_frames: usize, most_rows: usize) -> Self {
        Self { frames: 0, rows: 0, bytes: 0, most_frames, most_rows }
    }

    pub(super) fn add(&mut self, entry: &NewEntry<'_>) {
        self.frames += 1;
        self.rows += usize::from(entry.records);
        self.bytes += entry.bytes.len();
    }

    /// Nothing else goes along.
    pub(super) fn close(&mut self) {
        self.most_frames = self.frames;
    }

    pub(super) fn is_full(&self) -> bool {
        self.frames >= self.most_frames || self.rows >= self.most_rows || self.bytes >= BATCH_BYTES
    }
}

/// A feed that cannot go on: the process ends, and opening the journal tells more.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("the journal cannot be read")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// Most bytes of frames in a batch, so that frames full of odd elements do not grow it without bound.
const BATCH_BYTES: usize = 32 << 20;
