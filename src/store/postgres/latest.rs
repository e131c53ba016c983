//! Repairing the latest position of devices: it may have become faulty, or a later one may have ceased to be.
//!
//! Under the lock of the device's row, so a writer that is at it commits first or waits; what it writes after that is later
//! and wins, as always.

use std::collections::{HashMap, HashSet};

use super::connection::Connection;
use super::flag_sql::{DEVICE_LOCK, DROP_FAULTY_NEWEST, FIND_NEWEST, LOCK_NEWEST, TAKE_DEVICES};
use super::replay_sql::{DROP_REPLACED_NEWEST, NEWEST_STANDS, UNSETTLED};
use crate::store::StoreError;
use crate::store::model::row::{Key, Row};
use crate::store::model::rows::Rows;
use crate::store::postgres::flag_update::{millis, time};

/// A device whose latest position may have to be another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Repair {
    pub(crate) imei: u64,
    /// The last instant at which something changed.
    pub(crate) until_ms: i64,
    /// Whether a position can be the newest one though the device has none now.
    pub(crate) may_begin: bool,
}

/// Makes each device's latest position the newest one that counts. One row of `repairs` a device, in order.
pub(crate) async fn repair(connection: &mut Connection, repairs: &[Repair]) -> Result<(), StoreError> {
    let imeis: Vec<_> = repairs.iter().map(|repair| repair.imei.cast_signed()).collect();
    let mut stands = HashMap::new();
    connection
        .each(REPAIRING, LOCK_NEWEST, &[&imeis], |row| {
            let imei: i64 = row.try_get(0)?;
            stands.insert(imei, millis(row.try_get(1)?));
            Ok(())
        })
        .await?;
    let concerned = |repair: &&Repair| match stands.get(&repair.imei.cast_signed()) {
        Some(ts_ms) => *ts_ms <= repair.until_ms,
        None => repair.may_begin,
    };
    let concerned: Vec<_> = repairs.iter().filter(concerned).collect();
    if concerned.is_empty() {
        return Ok(());
    }
    let imeis: Vec<_> = concerned.iter().map(|repair| repair.imei.cast_signed()).collect();
    // A new statement, after the lock: it sees what was committed before the lock was given.
    let mut dropped = HashSet::new();
    connection
        .each(REPAIRING, DROP_FAULTY_NEWEST, &[&imeis], |row| {
            let imei: i64 = row.try_get(0)?;
            dropped.insert(imei);
            Ok(())
        })
        .await?;
    for repair in concerned {
        let imei = repair.imei.cast_signed();
        match stands.get(&imei) {
            Some(ts_ms) if !dropped.contains(&imei) => {
                // From its own instant on: another record of that instant may have been under a flag when it was written.
                find(connection, imei, ts_ms.saturating_sub(1)).await?;
            }
            stood => {
                let before = stood.copied().unwrap_or(repair.until_ms);
                for back in STEPS_BACK_MS {
                    if find(connection, imei, before.saturating_sub(back)).await? {
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Lets the latest positions follow rows, which are sorted, that were inserted or have changed. Under the ledger's lock.
pub(crate) async fn replace(connection: &mut Connection, rows: &Rows) -> Result<(), StoreError> {
    let last = |device: &[(Key, u32)]| {
        let (last, _) = device.last()?;
        Some(Repair { imei: last.imei, until_ms: last.ts_ms, may_begin: true })
    };
    let mut repairs: Vec<_> = rows.devices().filter_map(last).collect();
    let imeis: Vec<_> = repairs.iter().map(|repair| repair.imei.cast_signed()).collect();
    // Somebody may just let the latest position go back to one of these rows, as it was: under the ledger's lock no others begin.
    let mut unsettled: Vec<i64> = Vec::new();
    connection
        .each(REPAIRING, UNSETTLED, &[&imeis], |row| {
            unsettled.push(DEVICE_LOCK + row.try_get::<_, i64>(0)?);
            Ok(())
        })
        .await?;
    if !unsettled.is_empty() {
        connection.query(REPAIRING, TAKE_DEVICES, &[&unsettled]).await?;
    }
    // Nearly all devices have a later one: those are not locked, or whoever writes it would wait.
    let mut stands = HashMap::new();
    connection
        .each(REPAIRING, NEWEST_STANDS, &[&imeis], |row| {
            let imei: i64 = row.try_get(0)?;
            stands.insert(imei.cast_unsigned(), millis(row.try_get(1)?));
            Ok(())
        })
        .await?;
    repairs.retain(|repair| stands.get(&repair.imei).is_none_or(|ts_ms| *ts_ms <= repair.until_ms));
    if repairs.is_empty() {
        return Ok(());
    }
    let concerned: HashSet<_> = repairs.iter().map(|repair| repair.imei).collect();
    let keys = rows.ordered().map(Row::key).filter(|key| concerned.contains(&key.imei));
    let (mut devices, mut times, mut fingerprints) = (Vec::new(), Vec::new(), Vec::new());
    for Key { imei, ts_ms, fingerprint } in keys {
        devices.push(imei.cast_signed());
        times.push(time(ts_ms));
        fingerprints.push(fingerprint);
    }
    let imeis: Vec<_> = repairs.iter().map(|repair| repair.imei.cast_signed()).collect();
    connection.query(REPAIRING, LOCK_NEWEST, &[&imeis]).await?;
    connection.execute(REPAIRING, DROP_REPLACED_NEWEST, &[&devices, &times, &fingerprints]).await?;
    repair(connection, &repairs).await
}

/// Whether there is one after that instant.
async fn find(connection: &mut Connection, imei: i64, after_ms: i64) -> Result<bool, StoreError> {
    let text: &'static str = FIND_NEWEST.as_str();
    Ok(connection.execute(REPAIRING, text, &[&imei, &time(after_ms)]).await? > 0)
}

const REPAIRING: &str = "repairing the latest positions";
/// How far back to look, step by step: a day touches one or two chunks, everything touches all of them.
const STEPS_BACK_MS: [i64; 3] = [86_400_000, 30 * 86_400_000, i64::MAX];
