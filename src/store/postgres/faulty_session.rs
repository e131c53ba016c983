//! The statements that batches and flags share in PostgreSQL: live flags, marks by key, and the repair of latest positions.
//!
//! Marks are set statement by statement over one day each, so that every statement knows the one or two chunks that it
//! touches, however many there are.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use teltonika_codecs::Imei;
use tokio_postgres::Row as Answer;

use super::connection::Connection;
use super::flag_sql::{
    DROP_FLAGGED_LATEST, FIND_LATEST, FIRST_POSITION, FOLLOW, LIVE_OVER, LOCK_LATEST, PLAN_AS_USUAL, PLAN_BY_KEY,
};
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::flags::cache::LedgerEntry;
use crate::store::flags::intervals::FlagInterval;
use crate::store::model::flag::Window;
use crate::store::statements::{FaultySession, Session};

impl Session for Connection {
    fn is_closed(&self) -> bool {
        self.has_ended()
    }

    async fn begin(&mut self, doing: &'static str) -> Result<(), StoreError> {
        self.batch(doing, "BEGIN").await
    }

    async fn commit(&mut self, doing: &'static str) -> Result<(), StoreError> {
        self.batch(doing, "COMMIT").await
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        self.batch("ending a transaction", "ROLLBACK").await
    }
}

impl FaultySession for Connection {
    async fn plan_by_key(&mut self) -> Result<(), StoreError> {
        self.batch(MARKING, PLAN_BY_KEY).await
    }

    async fn plan_as_usual(&mut self) -> Result<(), StoreError> {
        self.batch(MARKING, PLAN_AS_USUAL).await
    }

    async fn live_flags(&mut self, ranges: &[Window]) -> Result<Vec<LedgerEntry>, StoreError> {
        let imeis: Vec<_> = ranges.iter().map(|range| range.imei().get().cast_signed()).collect();
        let from: Vec<_> = ranges.iter().map(|range| time(range.from_ms())).collect();
        let to: Vec<_> = ranges.iter().map(|range| time(range.to_ms())).collect();
        self.query(LOOKING, LIVE_OVER, &[&imeis, &from, &to]).await?.iter().map(entry).collect()
    }

    async fn mark(
        &mut self,
        intervals: &[FlagInterval],
        mut changed: impl FnMut(u64, i64) + Send,
    ) -> Result<(), StoreError> {
        let mut intervals = in_days(self, intervals).await?;
        intervals.sort_unstable_by_key(|interval| (day(interval), interval.window));
        for day in intervals.chunk_by(|one, next| day(one) == day(next)) {
            let imeis: Vec<_> = day.iter().map(|interval| interval.window.imei().get().cast_signed()).collect();
            let from: Vec<_> = day.iter().map(|interval| time(interval.window.from_ms())).collect();
            let to: Vec<_> = day.iter().map(|interval| time(interval.window.to_ms())).collect();
            let faulty: Vec<_> = day.iter().map(|interval| interval.faulty).collect();
            let (Some(first), Some(last)) = (from.iter().min(), to.iter().max()) else { continue };
            let text: &'static str = FOLLOW.as_str();
            self.each(MARKING, text, &[&imeis, &from, &to, &faulty, first, last], |row| {
                let (imei, ts): (i64, SystemTime) = (row.try_get(0)?, row.try_get(1)?);
                changed(imei.cast_unsigned(), millis(ts));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn lock_latest(&mut self, imeis: &[u64]) -> Result<HashMap<u64, i64>, StoreError> {
        let mut latest = HashMap::new();
        self.each(REPAIRING, LOCK_LATEST, &[&signed(imeis)], |row| {
            let imei: i64 = row.try_get(0)?;
            latest.insert(imei.cast_unsigned(), millis(row.try_get(1)?));
            Ok(())
        })
        .await?;
        Ok(latest)
    }

    async fn drop_flagged_latest(&mut self, imeis: &[u64]) -> Result<HashSet<u64>, StoreError> {
        let mut dropped = HashSet::new();
        self.each(REPAIRING, DROP_FLAGGED_LATEST, &[&signed(imeis)], |row| {
            let imei: i64 = row.try_get(0)?;
            dropped.insert(imei.cast_unsigned());
            Ok(())
        })
        .await?;
        Ok(dropped)
    }

    async fn find_latest(&mut self, imei: u64, after_ms: i64) -> Result<bool, StoreError> {
        let text: &'static str = FIND_LATEST.as_str();
        Ok(self.execute(REPAIRING, text, &[&imei.cast_signed(), &time(after_ms)]).await? > 0)
    }
}

/// Cuts intervals longer than a day into days, and leaves out days in which the device has no positions.
async fn in_days(connection: &mut Connection, intervals: &[FlagInterval]) -> Result<Vec<FlagInterval>, StoreError> {
    let mut days = Vec::with_capacity(intervals.len());
    for interval in intervals {
        let (imei, end) = (interval.window.imei().get().cast_signed(), interval.window.to_ms());
        let mut next = interval.window.from_ms();
        while end - next >= DAY_MS {
            let rows = connection.query(MARKING, FIRST_POSITION, &[&imei, &time(next), &time(end)]).await?;
            let first = rows.first().map(|row| row.try_get(0)).transpose();
            let Some(first) = first.map_err(|error| StoreError::postgres(MARKING, error))? else {
                next = end + 1;
                break;
            };
            let first = millis(first);
            let last = (first + DAY_MS - 1).min(end);
            days.push(FlagInterval { window: interval.window.with_range(first, last), ..*interval });
            next = last + 1;
        }
        if next <= end {
            days.push(FlagInterval { window: interval.window.with_range(next, end), ..*interval });
        }
    }
    Ok(days)
}

fn day(interval: &FlagInterval) -> i64 {
    interval.window.from_ms().div_euclid(DAY_MS)
}

/// A row of the ledger: flag, device, bounds, whether it is live.
pub(super) fn entry(row: &Answer) -> Result<LedgerEntry, StoreError> {
    let (flag, live) = (row.try_get(0).map_err(failed)?, row.try_get::<_, bool>(4).map_err(failed)?);
    Ok(LedgerEntry { flag, live: if live { window(row, 1)? } else { None } })
}

/// Device and bounds from that column on; `None` if they are NULL.
pub(super) fn window(row: &Answer, column: usize) -> Result<Option<Window>, StoreError> {
    let imei: Option<i64> = row.try_get(column).map_err(failed)?;
    let from: Option<SystemTime> = row.try_get(column + 1).map_err(failed)?;
    let to: Option<SystemTime> = row.try_get(column + 2).map_err(failed)?;
    let (Some(imei), Some(from), Some(to)) = (imei, from, to) else { return Ok(None) };
    let imei = u64::try_from(imei).ok().and_then(|imei| Imei::try_from(imei).ok());
    let window = imei.and_then(|imei| Window::new(imei, millis(from), millis(to)).ok());
    window.map(Some).ok_or_else(|| StoreError::new(ErrorClass::Refuses, LOOKING, "the ledger holds an invalid window"))
}

fn failed(error: tokio_postgres::Error) -> StoreError {
    StoreError::postgres(LOOKING, error)
}

pub(super) fn signed(imeis: &[u64]) -> Vec<i64> {
    imeis.iter().map(|imei| imei.cast_signed()).collect()
}

/// Converts for a parameter. `SystemTime` holds every time that a position can have.
pub(super) fn time(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Converts to milliseconds since 1970. Earlier times do not occur, and become 0.
pub(super) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

const LOOKING: &str = "looking at the ledger of flags";
const MARKING: &str = "marking positions";
const REPAIRING: &str = "repairing the latest positions";
/// The interval of a chunk, unless the operator chose another one.
const DAY_MS: i64 = 86_400_000;
