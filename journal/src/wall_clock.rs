//! The wall clock: a function that is handed to whoever needs the time of day, so that a simulation can hand over its own.

use std::time::SystemTime;

/// Gives microseconds since 1970-01-01 UTC.
pub type WallClock = fn() -> i64;

/// This machine's wall clock. One that shows a time before 1970 or after the year 290,000 is no clock.
#[must_use]
pub fn unix_now_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
