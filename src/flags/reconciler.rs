//! Reconciliation: compares Directus' tables with the ledger and applies what is missing. The stream is only the fast way; what
//! it lost or never got arrives here: at the start, every few minutes, after Redis came back, and without Redis too.

use tokio::time::Instant;

use super::applier::{self, FlagOutcome, Work};
use super::context::{FlagContext, FlagTask};
use crate::backoff::Backoff;
use crate::store::{Applied, Ledger, StoreError};

/// Reconciles until the stop.
pub(super) async fn run<L: Ledger>(context: &FlagContext, mut ledger: L) {
    let mut backoff = Backoff::default();
    while !context.stop.is_cancelled() {
        let reconciled = tokio::select! {
            reconciled = reconcile(context, &mut ledger) => reconciled,
            () = context.stop.cancelled() => break,
        };
        context.note_refusal(FlagTask::Reconciler, reconciled.as_ref().err());
        match reconciled {
            Ok(0) => backoff.reset(),
            Ok(flags) => {
                backoff.reset();
                tracing::info!(flags, "reconciliation applied what the stream did not bring");
                context.metrics.reconciled.increment(flags);
                context.publish.notify_one();
            }
            Err(error) => {
                tracing::warn!(class = %error.class, cause = %error.source, "reconciliation waits: {error}");
                backoff.wait(&context.stop).await;
                continue;
            }
        }
        tokio::select! {
            () = context.reconcile.notified() => {}
            () = tokio::time::sleep(context.pace.reconcile_every) => {}
            () = context.stop.cancelled() => {}
        }
    }
    ledger.close().await;
}

/// Returns the number of flags that were behind. Changes that were set aside before are tried once more.
async fn reconcile<L: Ledger>(context: &FlagContext, ledger: &mut L) -> Result<u64, StoreError> {
    let begin = Instant::now();
    let (mut reconciled, mut refused) = (0, Vec::new());
    loop {
        let behind = ledger.behind(AT_ONCE, &refused).await?;
        let outcomes = applier::apply(context, ledger, Work::Changes(&behind)).await?;
        let changes = behind.iter().map(|change| (change.flag, change.seq));
        refused.extend(changes.zip(&outcomes).filter(|(_, outcome)| !is_taken(**outcome)).map(|(change, _)| change));
        let applied = outcomes.iter().filter(|outcome| **outcome == FlagOutcome::Taken(Applied::Applied)).count();
        reconciled += u64::try_from(applied).unwrap_or(u64::MAX);
        // Another process may be reconciling too.
        if behind.len() < AT_ONCE || outcomes.iter().all(|outcome| *outcome == FlagOutcome::Taken(Applied::Stale)) {
            break;
        }
    }
    // Flags that a process recorded and did not get to apply.
    loop {
        let unapplied = ledger.unapplied(AT_ONCE, &refused).await?;
        let outcomes = applier::apply(context, ledger, Work::Recorded(&unapplied)).await?;
        refused.extend(
            unapplied.iter().zip(outcomes).filter(|(_, outcome)| !is_taken(*outcome)).map(|(change, _)| *change),
        );
        if unapplied.len() < AT_ONCE {
            break;
        }
    }
    context.stuck.retain_since(begin);
    let dropped = ledger.trim_corrections().await?;
    if dropped > 0 {
        tracing::error!(dropped, "dropped the oldest corrections: the outbox is full because Redis did not take them");
        context.metrics.corrections_dropped.increment(dropped);
    }
    Ok(reconciled)
}

const fn is_taken(outcome: FlagOutcome) -> bool {
    matches!(outcome, FlagOutcome::Taken(_))
}

const AT_ONCE: usize = 256;
