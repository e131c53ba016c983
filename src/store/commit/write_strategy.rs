//! How the rows of a batch are written: the fast strategy, and what to do where it does not lead on.

use std::time::Duration;

use crate::store::error::classify::SqlErrorKind;
use crate::store::model::batch::Batch;

/// How the rows of a batch are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteStrategy {
    /// New rows by COPY, others under the key.
    Copy,
    /// All rows under the key.
    Conflict,
    /// Under the key, in halves until refused rows stand alone.
    Bisect,
}

impl WriteStrategy {
    /// The way to take after an error on this one, if another helps.
    pub(crate) fn after(self, kind: SqlErrorKind) -> Option<Self> {
        match (self, kind) {
            (Self::Copy, SqlErrorKind::Stored) => Some(Self::Conflict),
            (Self::Copy | Self::Conflict, SqlErrorKind::Row) => Some(Self::Bisect),
            _ => None,
        }
    }

    /// A batch takes a second at most; the server gives up on a statement after 45. Longer means that nobody is there.
    /// Standing rows apart takes a few statements for each.
    pub(crate) fn patience(self) -> Duration {
        match self {
            Self::Copy | Self::Conflict => Duration::from_mins(1),
            Self::Bisect => Duration::from_mins(10),
        }
    }
}

/// The fast strategy again, unless rows that were thought to be new were not: then more of them are on their way, and a failed
/// COPY costs more than the detour.
pub(crate) fn next_strategy(strategy: WriteStrategy, batch: &Batch, duplicates: u64) -> WriteStrategy {
    let expected = batch.known_stored + u64::try_from(batch.perhaps_stored.len()).unwrap_or(u64::MAX);
    if strategy == WriteStrategy::Conflict && duplicates > expected {
        WriteStrategy::Conflict
    } else {
        WriteStrategy::Copy
    }
}
