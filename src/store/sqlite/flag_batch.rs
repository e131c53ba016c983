//! The drain's side of faulty flags in SQLite: marks the rows of a batch that a live flag covers. The immediate
//! transaction keeps every other writer out, so no lock is needed.

use sqlx::sqlite::SqliteConnection;
use teltonika_codecs::Imei;

use super::flags::{entry, follow, repair_latest};
use super::operator_connection::failed;
use crate::store::error::store_error::StoreError;
use crate::store::flags::cache::{FlagCache, LedgerEntry, REMEMBERED_MAX};
use crate::store::flags::intervals::FlagInterval;
use crate::store::model::batch::Batch;
use crate::store::model::flag::Window;
use crate::store::model::row::Key;
use crate::store::model::rows::Rows;

/// Reads what is new in the ledger.
pub(super) async fn learn(connection: &mut SqliteConnection, known: &mut FlagCache) -> Result<(), StoreError> {
    let version = "SELECT coalesce(max(version), 0) FROM position_flag_ledger";
    let version: i64 = sqlx::query_scalar(version).fetch_one(&mut *connection).await.map_err(failed(LOOKING))?;
    if known.too_many() || version == known.version() {
        return Ok(());
    }
    if version < known.version() {
        // The ledger was emptied, or replaced by an older one.
        *known = FlagCache::default();
    }
    let newer = "SELECT flag_id, imei, ts_from, ts_to, faulty AND NOT deleted FROM position_flag_ledger \
                 WHERE version > ?1 AND (?1 > 0 OR (faulty AND NOT deleted)) LIMIT ?2";
    let most = i64::try_from(REMEMBERED_MAX).unwrap_or(i64::MAX) + 1;
    let query = sqlx::query(newer).bind(known.version()).bind(most);
    let rows = query.fetch_all(connection).await.map_err(failed(LOOKING))?;
    if rows.len() > REMEMBERED_MAX {
        known.give_up(version);
        return Ok(());
    }
    known.learn(version, rows.iter().map(entry).collect::<Result<_, _>>()?);
    Ok(())
}

/// Finds the keys of those sorted rows that live flags cover.
pub(super) async fn covered(
    connection: &mut SqliteConnection,
    known: &FlagCache,
    rows: &Rows,
) -> Result<Vec<Key>, StoreError> {
    if !known.too_many() {
        return Ok(known.covered(rows));
    }
    let over = "SELECT flag_id, imei, ts_from, ts_to, 1 FROM position_flag_ledger \
                WHERE faulty AND NOT deleted AND imei = ? AND ts_to >= ? AND ts_from <= ?";
    let mut entries: Vec<LedgerEntry> = Vec::new();
    for device in rows.devices() {
        let ([(first, _), ..], [.., (last, _)]) = (device, device) else { continue };
        let query = sqlx::query(over).bind(first.imei.cast_signed()).bind(first.ts_ms).bind(last.ts_ms);
        for row in query.fetch_all(&mut *connection).await.map_err(failed(LOOKING))? {
            entries.push(entry(&row)?);
        }
    }
    let mut asked = FlagCache::default();
    asked.remember(entries);
    Ok(asked.covered(rows))
}

/// Marks the rows of a batch that live flags cover.
pub(super) async fn flag_rows(
    connection: &mut SqliteConnection,
    known: &FlagCache,
    batch: &Batch,
) -> Result<(), StoreError> {
    for rows in [&batch.new, &batch.perhaps_stored] {
        for key in covered(connection, known, rows).await? {
            if let Some(window) = instant(key) {
                follow(connection, &FlagInterval { window, faulty: true }).await?;
            }
        }
    }
    Ok(())
}

/// Finds the latest positions of devices whose latest one in the batch is covered.
pub(super) async fn repair_covered_latest(
    connection: &mut SqliteConnection,
    covered: &[Key],
) -> Result<(), StoreError> {
    for device in covered.chunk_by(|one, next| one.imei == next.imei) {
        if let Some(key) = device.last() {
            repair_latest(connection, key.imei.cast_signed(), key.ts_ms, true).await?;
        }
    }
    Ok(())
}

fn instant(key: Key) -> Option<Window> {
    Window::new(Imei::try_from(key.imei).ok()?, key.ts_ms, key.ts_ms).ok()
}

const LOOKING: &str = "looking at the ledger of flags";
