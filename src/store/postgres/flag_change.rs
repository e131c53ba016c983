//! A change of flags in two transactions.
//!
//! The first writes it down, under the ledger's lock alone, in milliseconds: from then on drains know it. The second makes
//! the positions that are there follow, under the locks of the devices, and takes as long as it takes. Whoever finds a flag
//! written down and not applied can do the second at any time: it goes by what the ledger says, never by the event.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Row as Answer;
use uuid::Uuid;

use super::connection::Connection;
use super::flag_sql::{
    CORRECT, DEVICE_LOCK, FORGET_WINDOWS, LEDGER_LOCK, LIVE_OVER, MARK_APPLIED, PLAN_BY_KEY, RECORD, TAKE_DEVICES,
    TAKE_LEDGER, UNAPPLIED_WINDOWS,
};
use crate::store::StoreError;
use crate::store::flags::intervals::{Tally, merged, parts};
use crate::store::model::flag::{FlagChange, FlagState, Window};
use crate::store::postgres::flag_batch::{entry, window};
use crate::store::postgres::flag_update::{follow, time};
use crate::store::postgres::latest::{Repair, repair};

/// Writes changes down, at most one of each flag, in the order of the flags.
pub(crate) async fn record(connection: &mut Connection, changes: &[FlagChange]) -> Result<(), StoreError> {
    const RECORDING: &str = "writing flags down";
    let new: Vec<_> = changes.iter().map(|change| Columns::of(&change.state)).collect();
    let old: Vec<_> = changes.iter().map(|change| Bounds::of(change.old)).collect();
    let flags: Vec<_> = changes.iter().map(|change| change.flag).collect();
    let seqs: Vec<_> = changes.iter().map(|change| change.seq).collect();
    let imeis: Vec<_> = new.iter().map(|new| new.bounds.imei).collect();
    let from: Vec<_> = new.iter().map(|new| new.bounds.from).collect();
    let to: Vec<_> = new.iter().map(|new| new.bounds.to).collect();
    let faulty: Vec<_> = new.iter().map(|new| new.faulty).collect();
    let deleted: Vec<_> = new.iter().map(|new| new.deleted).collect();
    let reasons: Vec<_> = new.iter().map(|new| new.reason).collect();
    let old_imeis: Vec<_> = old.iter().map(|old| old.imei).collect();
    let old_from: Vec<_> = old.iter().map(|old| old.from).collect();
    let old_to: Vec<_> = old.iter().map(|old| old.to).collect();
    connection.batch(RECORDING, "BEGIN").await?;
    connection.query(RECORDING, TAKE_LEDGER, &[&LEDGER_LOCK]).await?;
    connection
        .execute(
            RECORDING,
            RECORD,
            &[&flags, &seqs, &imeis, &from, &to, &faulty, &deleted, &reasons, &old_imeis, &old_from, &old_to],
        )
        .await?;
    connection.batch(RECORDING, "COMMIT").await
}

/// Makes positions follow those of the flags that are written down and not applied; gives them with the change that they
/// follow now.
pub(crate) async fn apply(connection: &mut Connection, flags: &[Uuid]) -> Result<HashMap<Uuid, i64>, StoreError> {
    connection.batch(APPLYING, "BEGIN").await?;
    connection.batch(APPLYING, PLAN_BY_KEY).await?;
    let unapplied = under_lock(connection, flags).await?;
    if !unapplied.seqs.is_empty() {
        let windows = merged(unapplied.windows.iter().map(|held| held.window));
        let live = live_flags(connection, &windows).await?;
        let mut tally = Tally::new(parts(&windows, &live), unapplied.windows.iter().map(|held| held.window));
        let parts = tally.parts();
        follow(connection, &parts, |imei, ts_ms| tally.count(imei, ts_ms)).await?;
        correct(connection, &unapplied.windows, &tally).await?;
        repair_newest(connection, &windows, &tally).await?;
        settle(connection, &unapplied).await?;
    }
    connection.batch(APPLYING, "COMMIT").await?;
    Ok(unapplied.seqs)
}

/// What is to be done for some flags.
#[derive(Debug, Default)]
struct Unapplied {
    seqs: HashMap<Uuid, i64>,
    windows: Vec<Held>,
}

/// A window that a flag holds, or held.
#[derive(Debug)]
struct Held {
    flag: Uuid,
    seq: i64,
    /// The change that took it away, if it did.
    replaced_by: Option<i64>,
    window: Window,
}

/// Reads it again and again until the locks of all devices in it are held: the ledger may change while a lock is waited for.
async fn under_lock(connection: &mut Connection, flags: &[Uuid]) -> Result<Unapplied, StoreError> {
    let mut locked = BTreeSet::new();
    loop {
        let mut unapplied = Unapplied::default();
        for row in connection.query(APPLYING, UNAPPLIED_WINDOWS, &[&flags]).await? {
            read(&row, &mut unapplied)?;
        }
        let devices: BTreeSet<_> = unapplied.windows.iter().map(|held| held.window.imei().get()).collect();
        let missing: Vec<_> = devices.difference(&locked).map(|imei| DEVICE_LOCK + imei.cast_signed()).collect();
        if missing.is_empty() {
            return Ok(unapplied);
        }
        connection.query(APPLYING, TAKE_DEVICES, &[&missing]).await?;
        locked.extend(devices);
    }
}

fn read(row: &Answer, unapplied: &mut Unapplied) -> Result<(), StoreError> {
    let failed = |error| StoreError::postgres(APPLYING, error);
    let (flag, seq) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    unapplied.seqs.insert(flag, seq);
    // A tombstone of a flag that nobody knew covers nothing.
    if let Some(window) = window(row, 3)? {
        let replaced_by = row.try_get(2).map_err(failed)?;
        unapplied.windows.push(Held { flag, seq, replaced_by, window });
    }
    Ok(())
}

/// Live flags that reach into the windows, and a few more of the same devices; merged.
async fn live_flags(connection: &mut Connection, windows: &[Window]) -> Result<Vec<Window>, StoreError> {
    let (mut imeis, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
    for device in windows.chunk_by(|one, next| one.imei() == next.imei()) {
        let ([first, ..], [.., last]) = (device, device) else { continue };
        imeis.push(first.imei().get().cast_signed());
        from.push(time(first.from_ms()));
        to.push(time(last.to_ms()));
    }
    let mut live = Vec::new();
    for row in connection.query(APPLYING, LIVE_OVER, &[&imeis, &from, &to]).await? {
        live.extend(entry(&row)?.live);
    }
    Ok(merged(live))
}

/// One correction a window in which something changed.
async fn correct(connection: &mut Connection, windows: &[Held], tally: &Tally) -> Result<(), StoreError> {
    let counted = windows.iter().map(|held| (held, tally.changed_in(&held.window)));
    let changed: Vec<_> = counted.filter(|(_, changed)| *changed > 0).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let imeis: Vec<_> = changed.iter().map(|(held, _)| held.window.imei().get().cast_signed()).collect();
    let from: Vec<_> = changed.iter().map(|(held, _)| time(held.window.from_ms())).collect();
    let to: Vec<_> = changed.iter().map(|(held, _)| time(held.window.to_ms())).collect();
    let positions: Vec<_> = changed.iter().map(|(_, changed)| *changed).collect();
    let flags: Vec<_> = changed.iter().map(|(held, _)| held.flag).collect();
    let seqs: Vec<_> = changed.iter().map(|(held, _)| held.seq).collect();
    connection.execute(APPLYING, CORRECT, &[&imeis, &from, &to, &positions, &flags, &seqs]).await?;
    Ok(())
}

async fn repair_newest(connection: &mut Connection, windows: &[Window], tally: &Tally) -> Result<(), StoreError> {
    let mut repairs: BTreeMap<u64, Repair> = BTreeMap::new();
    for window in windows {
        let imei = window.imei().get();
        let until_ms = window.to_ms();
        let repair = repairs.entry(imei).or_insert(Repair { imei, until_ms, may_begin: false });
        repair.until_ms = repair.until_ms.max(until_ms);
        repair.may_begin |= tally.changed_in(window) > 0;
    }
    // A batch takes away a latest position that a flag covers, though the flag was never applied to the row itself: where the
    // flag ends before that, no row changes, and the position counts again.
    for part in tally.parts().iter().filter(|part| !part.faulty) {
        if let Some(repair) = repairs.get_mut(&part.window.imei().get()) {
            repair.may_begin = true;
        }
    }
    let repairs: Vec<_> = repairs.into_values().collect();
    repair(connection, &repairs).await
}

async fn settle(connection: &mut Connection, unapplied: &Unapplied) -> Result<(), StoreError> {
    let (flags, seqs): (Vec<Uuid>, Vec<i64>) = unapplied.seqs.iter().map(|(flag, seq)| (*flag, *seq)).unzip();
    connection.execute(APPLYING, MARK_APPLIED, &[&flags, &seqs]).await?;
    let replaced = unapplied.windows.iter().filter_map(|held| Some((held.flag, held.replaced_by?)));
    let (flags, seqs): (Vec<Uuid>, Vec<i64>) = replaced.unzip();
    if !flags.is_empty() {
        connection.execute(APPLYING, FORGET_WINDOWS, &[&flags, &seqs]).await?;
    }
    Ok(())
}

/// A window as three columns.
struct Bounds {
    imei: Option<i64>,
    from: Option<std::time::SystemTime>,
    to: Option<std::time::SystemTime>,
}

impl Bounds {
    fn of(window: Option<Window>) -> Self {
        Self {
            imei: window.map(|window| window.imei().get().cast_signed()),
            from: window.map(|window| time(window.from_ms())),
            to: window.map(|window| time(window.to_ms())),
        }
    }
}

/// What a flag says, as columns.
struct Columns<'a> {
    bounds: Bounds,
    faulty: bool,
    deleted: bool,
    reason: Option<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(state: &'a FlagState) -> Self {
        match state {
            FlagState::Set { window, faulty, reason } => {
                Self { bounds: Bounds::of(Some(*window)), faulty: *faulty, deleted: false, reason: reason.as_deref() }
            }
            FlagState::Deleted => Self { bounds: Bounds::of(None), faulty: false, deleted: true, reason: None },
        }
    }
}

const APPLYING: &str = "making positions follow flags";
