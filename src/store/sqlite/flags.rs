//! What the drain and the ledger share in SQLite: live flags, positions that follow them, and the repair of latest
//! positions. All of it runs inside an immediate transaction, so nothing changes in between.

use std::sync::LazyLock;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};
use teltonika_codecs::Imei;
use uuid::Uuid;

use super::operator_connection::failed;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::flags::cache::LedgerEntry;
use crate::store::flags::intervals::{FlagInterval, merged};
use crate::store::model::column_set::{all_columns, latest_wins};
use crate::store::model::flag::Window;

/// Sets `faulty` in an interval. Returns the number of positions that changed.
pub(super) async fn follow(connection: &mut SqliteConnection, part: &FlagInterval) -> Result<i64, StoreError> {
    let update = "UPDATE positions SET faulty = ?1 WHERE imei = ?2 AND ts BETWEEN ?3 AND ?4 AND faulty <> ?1";
    let FlagInterval { window, faulty } = part;
    let query = sqlx::query(update).bind(faulty).bind(imei_of(window)).bind(window.from_ms()).bind(window.to_ms());
    let done = query.execute(connection).await.map_err(failed("marking positions"))?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
}

/// Reads the live flags of a device that end at an instant or later, merged.
pub(super) async fn live_flags(
    connection: &mut SqliteConnection,
    imei: i64,
    from_ms: i64,
) -> Result<Vec<Window>, StoreError> {
    let query = "SELECT flag_id, imei, ts_from, ts_to, 1 FROM position_flag_ledger \
                 WHERE faulty AND NOT deleted AND imei = ? AND ts_to >= ?";
    let rows = sqlx::query(query).bind(imei).bind(from_ms).fetch_all(connection).await.map_err(failed(READING))?;
    let mut live = Vec::new();
    for row in rows {
        live.extend(entry(&row)?.live);
    }
    Ok(merged(live))
}

/// Makes the latest position of a device the latest one that counts, if something changed up to an instant. With
/// `may_begin`, also for a device that has none now.
pub(super) async fn repair_latest(
    connection: &mut SqliteConnection,
    imei: i64,
    until_ms: i64,
    may_begin: bool,
) -> Result<(), StoreError> {
    let repairing = failed("repairing the latest positions");
    let stored = sqlx::query_scalar("SELECT ts FROM latest_positions WHERE imei = ?");
    let stored: Option<i64> = stored.bind(imei).fetch_optional(&mut *connection).await.map_err(repairing)?;
    if !stored.map_or(may_begin, |ts_ms| ts_ms <= until_ms) {
        return Ok(());
    }
    let faulty = "DELETE FROM latest_positions WHERE imei = ?1 AND EXISTS (SELECT * FROM position_flag_ledger f \
                  WHERE f.faulty AND NOT f.deleted AND f.imei = ?1 AND f.ts_to >= latest_positions.ts \
                      AND f.ts_from <= latest_positions.ts)";
    let is_removed =
        sqlx::query(faulty).bind(imei).execute(&mut *connection).await.map_err(repairing)?.rows_affected() > 0;
    let after_ms = if is_removed { -1 } else { stored.unwrap_or(-1) };
    // Searches between the flags, the latest gap first: a flag may cover hours of rows.
    let mut end_ms = i64::MAX;
    for flag in live_flags(connection, imei, after_ms).await?.iter().rev() {
        if write_latest_between(connection, imei, after_ms.max(flag.to_ms()), end_ms).await? {
            return Ok(());
        }
        end_ms = flag.from_ms();
    }
    if end_ms > after_ms {
        write_latest_between(connection, imei, after_ms, end_ms).await?;
    }
    Ok(())
}

/// Writes the latest position that counts between two instants. Returns whether there is one.
async fn write_latest_between(
    connection: &mut SqliteConnection,
    imei: i64,
    after_ms: i64,
    before_ms: i64,
) -> Result<bool, StoreError> {
    static FIND: LazyLock<String> = LazyLock::new(|| {
        let columns = all_columns().join(", ");
        format!(
            "INSERT INTO latest_positions ({columns}) SELECT {columns} FROM positions \
             WHERE imei = ? AND ts > ? AND ts < ? AND valid AND NOT faulty AND ts * 1000 <= received_at + 300000000 \
             ORDER BY ts DESC, fingerprint DESC LIMIT 1 {}",
            latest_wins()
        )
    });
    let query = sqlx::query(AssertSqlSafe(FIND.as_str())).bind(imei).bind(after_ms).bind(before_ms);
    let done = query.execute(connection).await.map_err(failed("repairing the latest positions"))?;
    Ok(done.rows_affected() > 0)
}

/// Reads flag, device, bounds, and whether the flag is live.
pub(super) fn entry(row: &SqliteRow) -> Result<LedgerEntry, StoreError> {
    let live: bool = row.try_get(4).map_err(failed(READING))?;
    Ok(LedgerEntry { flag: flag(row, 0)?, live: if live { window(row, 1)? } else { None } })
}

/// Reads device and bounds from that column on; `None` if they are NULL.
pub(super) fn window(row: &SqliteRow, column: usize) -> Result<Option<Window>, StoreError> {
    let value = |at| row.try_get::<Option<i64>, _>(at).map_err(failed(READING));
    let (Some(imei), Some(from), Some(to)) = (value(column)?, value(column + 1)?, value(column + 2)?) else {
        return Ok(None);
    };
    let imei = u64::try_from(imei).ok().and_then(|imei| Imei::try_from(imei).ok());
    let window = imei.and_then(|imei| Window::new(imei, from, to).ok());
    window.map(Some).ok_or_else(|| StoreError::new(ErrorClass::Refuses, READING, "the ledger holds an invalid window"))
}

pub(super) fn flag(row: &SqliteRow, column: usize) -> Result<Uuid, StoreError> {
    let bytes: Vec<u8> = row.try_get(column).map_err(failed(READING))?;
    Uuid::from_slice(&bytes).map_err(|error| StoreError::new(ErrorClass::Refuses, READING, error))
}

pub(super) fn imei_of(window: &Window) -> i64 {
    window.imei().get().cast_signed()
}

const READING: &str = "looking at the ledger of flags";
