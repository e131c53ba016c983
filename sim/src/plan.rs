//! The plan of a seed: the rate of each step, the faults that it has, and the mutant.

use fastrand::Rng;
use odograph::store::{CommitStep, FlagOrder};

use crate::database::Flaw;

/// A part that is broken on purpose. The simulation must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A disk only claims to have synced.
    LyingDisk,
    /// A relay in front of the service acknowledges frames by itself.
    EarlyReceipt,
    /// The journal is released up to its end before the commit.
    EarlyRelease,
    /// A store only claims to have committed.
    EmptyCommit,
    /// A process that starts again opens an empty journal.
    ForgottenJournal,
    /// Flags are taken from the stream and never applied.
    DeafConsumer,
    /// A database with a flaw.
    Database(Flaw),
    /// The steps of a batch's transaction in another order, or without one of them.
    CommitOrder(&'static [CommitStep]),
    /// The steps of a flag's transactions in another order, or without one of them.
    FlagOrder(FlagOrder),
}

/// How likely steps are. Each seed has its own mixture and lacks most faults, so that each fault occurs alone and
/// together with others.
#[expect(clippy::struct_excessive_bools, reason = "each is a fault that a seed has or has not")]
pub struct Plan {
    pub mutant: Option<Mutant>,
    pub steps: usize,
    pub trackers: usize,
    pub processes: usize,
    /// Receipts come after the commit, without a journal.
    pub commit_mode: bool,
    pub flags: usize,
    /// Of 256 statements.
    pub statement_faults: u8,
    /// One step in so many is a fault; 0 none.
    pub fault_every: usize,
    pub kills: bool,
    pub disk: bool,
    pub full: bool,
    pub clones: bool,
    pub database: bool,
    pub goes_back: bool,
    pub clocks: bool,
    pub refuses_rows: bool,
    /// Now and then a trigger drops every row that is inserted.
    pub drops_rows: bool,
    pub links: u8,
    /// Bytes that a connection takes from the service before its tracker reads.
    pub room: usize,
    pub small_journal: bool,
    pub batch_rows: usize,
}

impl Plan {
    pub fn new(rng: &mut Rng, mutant: Option<Mutant>) -> Self {
        let mut often = |of_256: u8| rng.u8(..) < of_256;
        let commit_mode = often(30) && mutant.is_none();
        let (kills, disk, full, clones) = (often(170), often(120), often(60), often(50));
        let (database, goes_back, clocks, refuses_rows) = (often(150), often(80), often(70), often(64));
        let small_journal = often(90);
        let drops_rows = often(60);
        Self {
            mutant,
            steps: rng.usize(120..420),
            trackers: rng.usize(1..5),
            processes: if rng.u8(..) < 70 { 2 } else { 1 },
            commit_mode,
            flags: rng.usize(0..5),
            statement_faults: if rng.bool() { rng.u8(0..30) } else { 0 },
            fault_every: if rng.u8(..) < 230 { rng.usize(12..60) } else { 0 },
            kills,
            disk,
            full,
            clones: clones && !commit_mode,
            database,
            goes_back: goes_back && !commit_mode,
            clocks,
            refuses_rows,
            drops_rows,
            links: if rng.bool() { rng.u8(0..40) } else { 0 },
            room: if rng.u8(..) < 40 { rng.usize(1..6) } else { 4096 },
            small_journal,
            batch_rows: if rng.bool() { rng.usize(1..12) } else { 1000 },
        }
    }
}
