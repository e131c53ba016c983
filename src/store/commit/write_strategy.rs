//! How the rows of a batch are written: the fast strategy, and the next one if it fails.

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
    /// Under the key, in halves until each refused row is alone.
    Bisect,
}

impl WriteStrategy {
    /// Returns the strategy to take after an error, if another one helps.
    pub(crate) fn after(self, kind: SqlErrorKind) -> Option<Self> {
        match (self, kind) {
            (Self::Copy, SqlErrorKind::Stored) => Some(Self::Conflict),
            (Self::Copy | Self::Conflict, SqlErrorKind::Row) => Some(Self::Bisect),
            _ => None,
        }
    }

    /// Returns the time limit of an attempt. A batch takes a second at most, and the server gives up on a statement
    /// after 45. Longer means that the server is gone. Bisect takes a few statements for each refused row.
    pub(crate) fn patience(self) -> Duration {
        match self {
            Self::Copy | Self::Conflict => Duration::from_mins(1),
            Self::Bisect => Duration::from_mins(10),
        }
    }
}

/// Returns the first strategy of the next batch: COPY, unless rows of this batch that should have been new were stored.
/// Then more such rows are on their way, and a failed COPY costs more than inserts under the key.
pub(crate) fn next_strategy(strategy: WriteStrategy, batch: &Batch, duplicates: u64) -> WriteStrategy {
    let expected = batch.known_stored + u64::try_from(batch.perhaps_stored.len()).unwrap_or(u64::MAX);
    if strategy == WriteStrategy::Conflict && duplicates > expected {
        WriteStrategy::Conflict
    } else {
        WriteStrategy::Copy
    }
}
