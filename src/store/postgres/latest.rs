//! The latest positions of devices whose rows a replay has changed.

use std::collections::{HashMap, HashSet};

use super::connection::Connection;
use super::faulty_session::{millis, time};
use super::flag_sql::{DEVICE_LOCK, LOCK_LATEST, TAKE_DEVICES};
use super::replay_sql::{DROP_REPLACED_LATEST, LATEST_TIMES, UNSETTLED};
use crate::store::error::store_error::StoreError;
use crate::store::flags::latest::{LatestRepair, repair};
use crate::store::model::row::{Key, Row};
use crate::store::model::rows::Rows;

/// Lets the latest positions follow rows, which are sorted, that were inserted or have changed. Under the ledger's lock.
pub(crate) async fn replace(connection: &mut Connection, rows: &Rows) -> Result<(), StoreError> {
    let last = |device: &[(Key, u32)]| {
        let (last, _) = device.last()?;
        Some(LatestRepair { imei: last.imei, until_ms: last.ts_ms, may_begin: true })
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
        .each(REPAIRING, LATEST_TIMES, &[&imeis], |row| {
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
    connection.query(REPAIRING, LOCK_LATEST, &[&imeis]).await?;
    connection.execute(REPAIRING, DROP_REPLACED_LATEST, &[&devices, &times, &fingerprints]).await?;
    repair(connection, &repairs).await
}

const REPAIRING: &str = "repairing the latest positions";
