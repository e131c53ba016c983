//! Repairs the latest positions of devices: one may have become faulty, or a later one may not be faulty any more.
//!
//! The repair locks the device's row in `latest_positions`. Another writer of that row commits before, or waits. After
//! the wait it writes its own position only if that is later.

use crate::store::error::store_error::StoreError;
use crate::store::statements::FaultySession;

/// A device whose latest position may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LatestRepair {
    pub(crate) imei: u64,
    /// The last instant at which a position changed.
    pub(crate) until_ms: i64,
    /// Whether the device can get a latest position if it has none.
    pub(crate) may_begin: bool,
}

/// Writes each device's last position that counts into its latest position. One element of `repairs` per device, in
/// order.
pub(crate) async fn repair(session: &mut impl FaultySession, repairs: &[LatestRepair]) -> Result<(), StoreError> {
    let imeis: Vec<_> = repairs.iter().map(|repair| repair.imei).collect();
    let stored = session.lock_latest(&imeis).await?;
    let concerned = |repair: &&LatestRepair| match stored.get(&repair.imei) {
        Some(ts_ms) => *ts_ms <= repair.until_ms,
        None => repair.may_begin,
    };
    let concerned: Vec<_> = repairs.iter().filter(concerned).collect();
    if concerned.is_empty() {
        return Ok(());
    }
    let imeis: Vec<_> = concerned.iter().map(|repair| repair.imei).collect();
    // A new statement after the lock sees everything that was committed before the lock was granted.
    let dropped = session.drop_flagged_latest(&imeis).await?;
    for LatestRepair { imei, until_ms, .. } in concerned {
        match stored.get(imei) {
            Some(ts_ms) if !dropped.contains(imei) => {
                // From its own instant on: a flag may have covered another record of that instant.
                session.find_latest(*imei, ts_ms.saturating_sub(1)).await?;
            }
            before => {
                let before_ms = before.copied().unwrap_or(*until_ms);
                for back in STEPS_BACK_MS {
                    if session.find_latest(*imei, before_ms.saturating_sub(back)).await? {
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

/// How far back to search, step by step: a day touches one or two chunks, everything touches all of them.
const STEPS_BACK_MS: [i64; 3] = [86_400_000, 30 * 86_400_000, i64::MAX];
