//! The batch's side of faulty flags. At the end of its transaction a batch reads the ledger once more, under a lock
//! that keeps the ledger as it is until the commit, and marks its own rows that a live flag covers.
//!
//! Anyone who changes the ledger takes the same lock alone. So a flag is either in the ledger before this reading, or
//! it is recorded after the batch's rows can be seen, and then its writer marks them.

use std::collections::HashMap;

use teltonika_codecs::Imei;

use super::cache::{FlagCache, REMEMBERED_MAX};
use super::intervals::FlagInterval;
use super::latest::{LatestRepair, repair};
use crate::store::error::store_error::StoreError;
use crate::store::model::batch::Batch;
use crate::store::model::flag::Window;
use crate::store::model::row::Key;
use crate::store::session_slot::OpenSession;
use crate::store::statements::{BatchSession, FaultySession};

/// The keys of a batch that live flags cover.
#[derive(Debug, Default)]
pub(crate) struct CoveredKeys {
    /// Keys of its rows.
    rows: Vec<Key>,
    /// Keys of its latest positions.
    pub(crate) latest: Vec<Key>,
}

/// Shares the ledger's lock, if flags can concern the batch.
pub(crate) async fn share_ledger(session: &mut impl BatchSession, batch: &Batch) -> Result<(), StoreError> {
    if concerns(batch) { session.share_ledger().await } else { Ok(()) }
}

/// Reads what is new in the ledger, and finds the covered keys of the batch, which is sorted.
pub(crate) async fn read_ledger<S: BatchSession>(
    open: &mut OpenSession<S>,
    batch: &Batch,
) -> Result<CoveredKeys, StoreError> {
    if !concerns(batch) {
        return Ok(CoveredKeys::default());
    }
    learn(&mut open.session, &mut open.flags).await?;
    if open.flags.is_empty() {
        return Ok(CoveredKeys::default());
    }
    let over_batch;
    let flags = if open.flags.too_many() {
        over_batch = flags_over(&mut open.session, batch).await?;
        &over_batch
    } else {
        &open.flags
    };
    let mut rows = flags.covered(&batch.new);
    rows.extend(flags.covered(&batch.perhaps_stored));
    Ok(CoveredKeys { rows, latest: flags.covered(&batch.latest) })
}

/// Marks the covered rows by their keys. Other rows under the flag do not belong to this batch.
pub(crate) async fn flag_rows(session: &mut impl FaultySession, covered: &CoveredKeys) -> Result<(), StoreError> {
    if covered.rows.is_empty() {
        return Ok(());
    }
    let interval = |key: &Key| Some(FlagInterval { window: instant(key)?, faulty: true });
    let mut intervals: Vec<_> = covered.rows.iter().filter_map(interval).collect();
    intervals.sort_unstable_by_key(|interval| interval.window);
    // Two records of one millisecond are one instant.
    intervals.dedup();
    session.plan_by_key().await?;
    session.mark(&intervals, |_, _| ()).await?;
    session.plan_as_usual().await
}

/// Finds another latest position for the devices whose latest one in the batch is covered.
pub(crate) async fn repair_latest(session: &mut impl FaultySession, covered: &CoveredKeys) -> Result<(), StoreError> {
    if covered.latest.is_empty() {
        return Ok(());
    }
    // In the order of the key, so the last one of a device is its latest.
    let devices = covered.latest.chunk_by(|one, next| one.imei == next.imei);
    let repairs: Vec<_> = devices
        .filter_map(<[Key]>::last)
        .map(|key| LatestRepair { imei: key.imei, until_ms: key.ts_ms, may_begin: true })
        .collect();
    session.plan_by_key().await?;
    repair(session, &repairs).await?;
    session.plan_as_usual().await
}

fn concerns(batch: &Batch) -> bool {
    !(batch.new.is_empty() && batch.perhaps_stored.is_empty() && batch.latest.is_empty())
}

async fn learn(session: &mut impl BatchSession, flags: &mut FlagCache) -> Result<(), StoreError> {
    let version = session.ledger_version().await?;
    if flags.too_many() || version == flags.version() {
        return Ok(());
    }
    if version < flags.version() {
        // The ledger was emptied, or restored from a backup.
        *flags = FlagCache::default();
    }
    let entries = session.newer_flags(flags.version(), REMEMBERED_MAX + 1).await?;
    if entries.len() > REMEMBERED_MAX {
        flags.give_up(version);
    } else {
        flags.learn(version, entries);
    }
    Ok(())
}

/// Reads the live flags over the batch's devices and times.
async fn flags_over(session: &mut impl BatchSession, batch: &Batch) -> Result<FlagCache, StoreError> {
    let mut spans: HashMap<u64, (i64, i64)> = HashMap::new();
    for rows in [&batch.new, &batch.perhaps_stored, &batch.latest] {
        for device in rows.devices() {
            let ([(first, _), ..], [.., (last, _)]) = (device, device) else { continue };
            let span = spans.entry(first.imei).or_insert((first.ts_ms, last.ts_ms));
            *span = (span.0.min(first.ts_ms), span.1.max(last.ts_ms));
        }
    }
    // A time that no window can hold is outside of every flag.
    let range = |(imei, (from, to))| Window::new(Imei::try_from(imei).ok()?, from, to).ok();
    let ranges: Vec<Window> = spans.into_iter().filter_map(range).collect();
    let mut flags = FlagCache::default();
    flags.remember(session.live_flags(&ranges).await?);
    Ok(flags)
}

fn instant(key: &Key) -> Option<Window> {
    Window::new(Imei::try_from(key.imei).ok()?, key.ts_ms, key.ts_ms).ok()
}
