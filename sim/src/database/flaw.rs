//! Flaws of a simulated database, for the simulation to find.

/// A flaw of the database. The simulation must notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Rows are inserted next to others of the same key.
    NoKey,
    /// The checkpoint is read without any lock, and no session owns a lane.
    PlainFence,
    /// A batch reads flags without the lock of the ledger.
    PlainLedger,
    /// The change of a flag that arrives last wins.
    NoSeq,
    /// A connection sees only the version of the ledger that it read first.
    NoVersion,
    /// Latest positions are written by arrival.
    LatestByArrival,
}
