//! Reconciliation: what Directus' side says against what the ledger has. The stream is only the fast way; what it lost, or
//! never got, comes here: at the start, every few minutes, after Redis came back, and also without any Redis.

use super::tasks::Shared;
use crate::backoff::Backoff;
use crate::store::{Applied, Ledger, StoreError};

/// Reconciles until the stop.
pub(super) async fn run<L: Ledger>(shared: &Shared, mut ledger: L) {
    let mut backoff = Backoff::default();
    while !shared.stop.is_cancelled() {
        let reconciled = tokio::select! {
            reconciled = reconcile(shared, &mut ledger) => reconciled,
            () = shared.stop.cancelled() => break,
        };
        match reconciled {
            Ok(0) => backoff.reset(),
            Ok(flags) => {
                backoff.reset();
                tracing::info!(flags, "reconciliation applied what the stream did not bring");
                shared.metrics.reconciled.increment(flags);
                shared.publish.notify_one();
            }
            Err(wrong) => {
                tracing::warn!(class = %wrong.class, cause = %wrong.source, "reconciliation waits: {wrong}");
                backoff.wait(&shared.stop).await;
                continue;
            }
        }
        tokio::select! {
            () = shared.reconcile.notified() => {}
            () = tokio::time::sleep(shared.pace.reconcile_every) => {}
            () = shared.stop.cancelled() => {}
        }
    }
    ledger.close().await;
}

/// Gives the number of flags that were behind.
async fn reconcile<L: Ledger>(shared: &Shared, ledger: &mut L) -> Result<u64, StoreError> {
    let mut reconciled = 0;
    loop {
        let behind = ledger.behind(AT_ONCE).await?;
        let outcomes = ledger.apply(&behind).await?;
        let applied = outcomes.iter().filter(|outcome| **outcome == Applied::Applied).count();
        reconciled += u64::try_from(applied).unwrap_or(u64::MAX);
        // Another process may be at the same.
        if behind.len() < AT_ONCE || applied == 0 {
            break;
        }
    }
    // What somebody wrote down and did not come to applying.
    while ledger.finish(AT_ONCE).await? == AT_ONCE {}
    let dropped = ledger.trim_corrections().await?;
    if dropped > 0 {
        tracing::error!(dropped, "corrections that nobody fetched were given up");
        shared.metrics.corrections_dropped.increment(dropped);
    }
    Ok(reconciled)
}

const AT_ONCE: usize = 256;
