//! Making positions follow the ledger: parts of windows, each of them faulty or not, by their keys.
//!
//! Statement by statement over one day each, so that every statement knows the one or two chunks that it touches, however
//! many there are.

use std::time::{Duration, SystemTime};

use super::connection::Connection;
use super::flag_sql::{FIRST_POSITION, FOLLOW};
use crate::store::StoreError;
use crate::store::flags::intervals::FlagInterval;

/// Sets `faulty` in the parts where it differs. Calls `changed` with device and time of every position that it changed.
pub(crate) async fn follow(
    connection: &mut Connection,
    parts: &[FlagInterval],
    mut changed: impl FnMut(u64, i64),
) -> Result<(), StoreError> {
    let mut parts = in_days(connection, parts).await?;
    parts.sort_unstable_by_key(|part| (day(part), part.window));
    for day in parts.chunk_by(|one, next| day(one) == day(next)) {
        let imeis: Vec<_> = day.iter().map(|part| part.window.imei().get().cast_signed()).collect();
        let from: Vec<_> = day.iter().map(|part| time(part.window.from_ms())).collect();
        let to: Vec<_> = day.iter().map(|part| time(part.window.to_ms())).collect();
        let faulty: Vec<_> = day.iter().map(|part| part.faulty).collect();
        let (Some(first), Some(last)) = (from.iter().min(), to.iter().max()) else { continue };
        let text: &'static str = FOLLOW.as_str();
        connection
            .each(FOLLOWING, text, &[&imeis, &from, &to, &faulty, first, last], |row| {
                let (imei, ts): (i64, SystemTime) = (row.try_get(0)?, row.try_get(1)?);
                changed(imei.cast_unsigned(), millis(ts));
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// The same parts, those longer than a day as the days in which the device has positions.
async fn in_days(connection: &mut Connection, parts: &[FlagInterval]) -> Result<Vec<FlagInterval>, StoreError> {
    let mut days = Vec::with_capacity(parts.len());
    for part in parts {
        let (imei, end) = (part.window.imei().get().cast_signed(), part.window.to_ms());
        let mut next = part.window.from_ms();
        while end - next >= DAY_MS {
            let rows = connection.query(FOLLOWING, FIRST_POSITION, &[&imei, &time(next), &time(end)]).await?;
            let first = rows.first().map(|row| row.try_get(0)).transpose();
            let Some(first) = first.map_err(|error| StoreError::postgres(FOLLOWING, error))? else {
                next = end + 1;
                break;
            };
            let first = millis(first);
            let last = (first + DAY_MS - 1).min(end);
            days.push(FlagInterval { window: part.window.with_range(first, last), ..*part });
            next = last + 1;
        }
        if next <= end {
            days.push(FlagInterval { window: part.window.with_range(next, end), ..*part });
        }
    }
    Ok(days)
}

fn day(part: &FlagInterval) -> i64 {
    part.window.from_ms().div_euclid(DAY_MS)
}

/// For a parameter. Every time that a position can have is inside what a clock holds.
pub(crate) fn time(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Milliseconds since 1970; what lies before does not occur, and is its beginning.
pub(crate) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

const FOLLOWING: &str = "marking positions";
/// The interval of a chunk, unless the operator chose another one.
const DAY_MS: i64 = 86_400_000;
