//! Applies changes through the ledger. A group that the database refuses for its content is divided; a single change that
//! stays refused is set aside, so that one bad flag holds up no other.

use std::time::Duration;

use uuid::Uuid;

use super::context::FlagContext;
use crate::store::{Applied, FlagChange, Ledger, StoreError};

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagOutcome {
    /// The ledger took it, or had it.
    Taken(Applied),
    /// The ledger has it, and the database refuses to change the positions. It is set aside.
    SetAside,
    /// The ledger does not have it, because the database refuses it. It is set aside.
    Refused,
}

/// What the ledger is asked to do.
#[derive(Clone, Copy)]
pub(super) enum Work<'a> {
    /// To record changes, and make positions follow.
    Changes(&'a [FlagChange]),
    /// To make positions follow changes that are recorded: flag and `seq`.
    Recorded(&'a [(Uuid, i64)]),
}

/// Does the work in order, and returns the outcome of each change.
///
/// # Errors
/// When the database is away or refuses everything. A part may be done; to offer all again is harmless.
pub(super) async fn apply<L: Ledger>(
    context: &FlagContext,
    ledger: &mut L,
    work: Work<'_>,
) -> Result<Vec<FlagOutcome>, StoreError> {
    let mut outcomes = Vec::with_capacity(work.len());
    // Groups still to do, the first one last. There are never more than the logarithm of the number of changes.
    let mut groups = vec![work];
    while let Some(group) = groups.pop() {
        match group.offer(ledger).await {
            Ok(taken) => outcomes.extend(taken.into_iter().map(FlagOutcome::Taken)),
            Err(error) if !error.is_about_content() => return Err(error),
            Err(error) => match group.halves() {
                Some((first, rest)) => groups.extend([rest, first]),
                None => outcomes.push(settle(context, ledger, group, error).await?),
            },
        }
    }
    Ok(outcomes)
}

/// Tries a single change a few times more, because the database may have been altered at this moment, then sets it aside.
async fn settle<L: Ledger>(
    context: &FlagContext,
    ledger: &mut L,
    single: Work<'_>,
    mut error: StoreError,
) -> Result<FlagOutcome, StoreError> {
    for _ in 0..TRIES {
        tokio::time::sleep(PAUSE).await;
        match single.offer(ledger).await {
            Ok(taken) => return Ok(FlagOutcome::Taken(taken.first().copied().unwrap_or(Applied::Stale))),
            Err(again) if again.is_about_content() => error = again,
            Err(other) => return Err(other),
        }
    }
    context.metrics.retries.increment(1);
    let recorded = matches!(single, Work::Recorded(_)) || error.is_after_recording();
    match single.first() {
        Some((flag, seq)) if context.stuck.set_aside(flag, seq, &error.detail()) => {
            Ok(if recorded { FlagOutcome::SetAside } else { FlagOutcome::Refused })
        }
        _ => Err(error),
    }
}

impl Work<'_> {
    fn len(self) -> usize {
        match self {
            Self::Changes(changes) => changes.len(),
            Self::Recorded(flags) => flags.len(),
        }
    }

    fn first(self) -> Option<(Uuid, i64)> {
        match self {
            Self::Changes(changes) => changes.first().map(|change| (change.flag, change.seq)),
            Self::Recorded(flags) => flags.first().copied(),
        }
    }

    /// Two parts in order, or `None` for a single change.
    fn halves(self) -> Option<(Self, Self)> {
        let middle = self.len() / 2;
        if middle == 0 {
            return None;
        }
        Some(match self {
            Self::Changes(changes) => {
                let (first, rest) = changes.split_at(middle);
                (Self::Changes(first), Self::Changes(rest))
            }
            Self::Recorded(flags) => {
                let (first, rest) = flags.split_at(middle);
                (Self::Recorded(first), Self::Recorded(rest))
            }
        })
    }

    async fn offer<L: Ledger>(self, ledger: &mut L) -> Result<Vec<Applied>, StoreError> {
        match self {
            Self::Changes(changes) => ledger.apply(changes).await,
            Self::Recorded(flags) => {
                let ids: Vec<_> = flags.iter().map(|(flag, _)| *flag).collect();
                ledger.follow(&ids).await?;
                Ok(vec![Applied::Applied; flags.len()])
            }
        }
    }
}

const TRIES: usize = 2;
const PAUSE: Duration = Duration::from_millis(50);
