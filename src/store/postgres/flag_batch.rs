//! The drain's side of faulty flags: at the end of its transaction a batch looks at the ledger once more, under a lock that
//! keeps it as it is until the commit, and mends its own rows where a live flag covers them.
//!
//! Whoever changes the ledger takes the same lock alone. So a flag either stands in the ledger before this look, or is
//! written down after these rows can be seen, and then whoever wrote it down marks them.

use std::collections::HashMap;
use std::time::SystemTime;

use teltonika_codecs::Imei;
use tokio_postgres::Row as Answer;

use super::connection::Connection;
use super::flag_sql::{
    LEDGER_LIVE, LEDGER_LOCK, LEDGER_NEWER, LEDGER_VERSION, LIVE_OVER, PLAN_AS_USUAL, PLAN_BY_KEY, SHARE_LEDGER,
};
use crate::store::flags::cache::{Entry, FlagCache, REMEMBERED_MAX};
use crate::store::flags::intervals::FlagInterval;
use crate::store::model::batch::Batch;
use crate::store::model::row::Key;
use crate::store::postgres::flag_update::{follow, millis, time};
use crate::store::postgres::latest::{Repair, repair};
use crate::store::{ErrorClass, StoreError, Window};

/// What live flags cover of a batch.
#[derive(Debug, Default)]
pub(crate) struct Covered {
    /// Among its rows.
    rows: Vec<Key>,
    /// Among its latest positions.
    pub(crate) newest: Vec<Key>,
}

/// Takes the lock, learns what is new in the ledger, and finds what of the batch, which is sorted, is covered.
pub(crate) async fn look(connection: &mut Connection, batch: &Batch) -> Result<Covered, StoreError> {
    if batch.new.is_empty() && batch.perhaps_stored.is_empty() && batch.latest.is_empty() {
        return Ok(Covered::default());
    }
    connection.query(LOOKING, SHARE_LEDGER, &[&LEDGER_LOCK]).await?;
    // A statement of its own: one that waited for a lock still sees what it saw before.
    learn(connection).await?;
    if connection.flags.is_empty() {
        return Ok(Covered::default());
    }
    let asked;
    let known = if connection.flags.too_many() {
        asked = over(connection, batch).await?;
        &asked
    } else {
        &connection.flags
    };
    let mut rows = known.covered(&batch.new);
    rows.extend(known.covered(&batch.perhaps_stored));
    Ok(Covered { rows, newest: known.covered(&batch.latest) })
}

async fn learn(connection: &mut Connection) -> Result<(), StoreError> {
    let rows = connection.query(LOOKING, LEDGER_VERSION, &[]).await?;
    let version = rows.first().map(|row| row.try_get(0)).transpose().map_err(failed)?.unwrap_or(0);
    if connection.flags.too_many() || version == connection.flags.version() {
        return Ok(());
    }
    if version < connection.flags.version() {
        // Somebody emptied it, or put an older one in its place.
        connection.flags = FlagCache::default();
    }
    let (known, most) = (connection.flags.version(), i64::try_from(REMEMBERED_MAX).unwrap_or(i64::MAX) + 1);
    let rows = match known {
        0 => connection.query(LOOKING, LEDGER_LIVE, &[&most]).await?,
        _ => connection.query(LOOKING, LEDGER_NEWER, &[&known, &most]).await?,
    };
    if rows.len() > REMEMBERED_MAX {
        connection.flags.give_up(version);
        return Ok(());
    }
    let entries = rows.iter().map(entry).collect::<Result<_, _>>()?;
    connection.flags.learn(version, entries);
    Ok(())
}

/// The live flags over the batch's devices and times.
async fn over(connection: &mut Connection, batch: &Batch) -> Result<FlagCache, StoreError> {
    let mut spans: HashMap<u64, (i64, i64)> = HashMap::new();
    for rows in [&batch.new, &batch.perhaps_stored, &batch.latest] {
        for device in rows.devices() {
            let ([(first, _), ..], [.., (last, _)]) = (device, device) else { continue };
            let span = spans.entry(first.imei).or_insert((first.ts_ms, last.ts_ms));
            *span = (span.0.min(first.ts_ms), span.1.max(last.ts_ms));
        }
    }
    let (imeis, spans): (Vec<_>, Vec<_>) = spans.into_iter().map(|(imei, span)| (imei.cast_signed(), span)).unzip();
    let from: Vec<_> = spans.iter().map(|(from, _)| time(*from)).collect();
    let to: Vec<_> = spans.iter().map(|(_, to)| time(*to)).collect();
    let mut entries = Vec::new();
    for row in connection.query(LOOKING, LIVE_OVER, &[&imeis, &from, &to]).await? {
        entries.push(entry(&row)?);
    }
    let mut known = FlagCache::default();
    known.remember(entries);
    Ok(known)
}

/// Marks the covered rows. By their keys: other rows under the flag are not this batch's.
pub(crate) async fn mend(connection: &mut Connection, covered: &Covered) -> Result<(), StoreError> {
    if covered.rows.is_empty() {
        return Ok(());
    }
    let part = |key: &Key| Some(FlagInterval { window: instant(key)?, faulty: true });
    let mut parts: Vec<_> = covered.rows.iter().filter_map(part).collect();
    parts.sort_unstable_by_key(|part| part.window);
    // Two records of one millisecond are one instant.
    parts.dedup();
    connection.batch(MENDING, PLAN_BY_KEY).await?;
    follow(connection, &parts, |_, _| ()).await?;
    connection.batch(MENDING, PLAN_AS_USUAL).await
}

/// Looks for the latest positions of the devices whose newest one in the batch is covered.
pub(crate) async fn mend_newest(connection: &mut Connection, covered: &Covered) -> Result<(), StoreError> {
    if covered.newest.is_empty() {
        return Ok(());
    }
    // In the order of the key, so the last one of a device is its newest.
    let devices = covered.newest.chunk_by(|one, next| one.imei == next.imei);
    let repairs: Vec<_> = devices
        .filter_map(<[Key]>::last)
        .map(|key| Repair { imei: key.imei, until_ms: key.ts_ms, may_begin: true })
        .collect();
    connection.batch(MENDING, PLAN_BY_KEY).await?;
    repair(connection, &repairs).await?;
    connection.batch(MENDING, PLAN_AS_USUAL).await
}

fn instant(key: &Key) -> Option<Window> {
    Window::new(Imei::try_from(key.imei).ok()?, key.ts_ms, key.ts_ms).ok()
}

/// Flag, device, bounds, whether it is live.
pub(crate) fn entry(row: &Answer) -> Result<Entry, StoreError> {
    let (flag, live) = (row.try_get(0).map_err(failed)?, row.try_get::<_, bool>(4).map_err(failed)?);
    Ok(Entry { flag, live: if live { window(row, 1)? } else { None } })
}

/// Device and bounds from that column on; `None` where they are NULL.
pub(crate) fn window(row: &Answer, column: usize) -> Result<Option<Window>, StoreError> {
    let imei: Option<i64> = row.try_get(column).map_err(failed)?;
    let from: Option<SystemTime> = row.try_get(column + 1).map_err(failed)?;
    let to: Option<SystemTime> = row.try_get(column + 2).map_err(failed)?;
    let (Some(imei), Some(from), Some(to)) = (imei, from, to) else { return Ok(None) };
    let imei = u64::try_from(imei).ok().and_then(|imei| Imei::try_from(imei).ok());
    let window = imei.and_then(|imei| Window::new(imei, millis(from), millis(to)).ok());
    window.map(Some).ok_or_else(|| StoreError::new(ErrorClass::Refuses, LOOKING, "the ledger holds what is no window"))
}

fn failed(error: tokio_postgres::Error) -> StoreError {
    StoreError::postgres(LOOKING, error)
}

const LOOKING: &str = "looking at the ledger of flags";
const MENDING: &str = "mending rows under a flag";
