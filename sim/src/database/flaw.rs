//! Flaws of a simulated database, for the simulation to find.

/// What a database is to do that none should: a simulation has to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Rows are inserted next to others of the same key.
    NoKey,
    /// The checkpoint is read without any lock, and no session owns a lane.
    PlainFence,
    /// A batch looks for flags without keeping the ledger as it is.
    PlainLedger,
    /// Of two changes of a flag the one that comes later wins.
    NoSeq,
    /// A connection never looks at what is newer in the ledger than its first look.
    NoVersion,
    /// Latest positions are written by arrival.
    LatestByArrival,
}
