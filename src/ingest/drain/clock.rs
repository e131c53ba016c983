//! Checks whether this machine's clock is plausible. The time window compares records with their receive time, so a wrong clock would
//! send good ones to quarantine: the drain waits instead, and the journal goes on.

use std::time::Duration;

/// Why the clock is implausible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImplausibleClock {
    /// It shows a time before this program was built: a board without a battery that has no network time yet.
    BeforeBuild,
    /// It shows a time well before the newest entry of the journal.
    BeforeJournal {
        /// By how much.
        behind: Duration,
    },
}

/// Why a lane waits for a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockFault {
    /// This machine's clock cannot be right.
    Implausible(ImplausibleClock),
    /// The database server's clock shows another time, and one of them must be wrong. It is so far ahead; negative if behind.
    ApartFromServer { seconds: i64 },
}

/// Checks the clock. `newest_us` is the newest receive time in the journal, microseconds since 1970-01-01 UTC.
#[must_use]
pub fn check(now_us: i64, newest_us: Option<i64>) -> Option<ImplausibleClock> {
    if now_us < BUILT_US {
        return Some(ImplausibleClock::BeforeBuild);
    }
    let behind = Duration::from_micros(u64::try_from(newest_us?.saturating_sub(now_us)).unwrap_or(0));
    (behind > TOLERANCE).then_some(ImplausibleClock::BeforeJournal { behind })
}

const fn built_us() -> i64 {
    // Digits only: written by the build script.
    let digits = env!("ODOGRAPH_BUILT_S").as_bytes();
    let (mut seconds, mut at) = (0_i64, 0);
    while at < digits.len() {
        seconds = seconds * 10 + (digits[at] - b'0') as i64;
        at += 1;
    }
    seconds * 1_000_000
}

/// When this program was built, microseconds since 1970-01-01 UTC.
pub const BUILT_US: i64 = built_us();
/// 2026-01-01: no journal is older. Not the build of this version, which may be newer than a backlog.
pub(super) const FIRST_VERSION_US: i64 = 1_767_225_600_000_000;
/// Clocks are sometimes set back by small steps.
pub(super) const TOLERANCE: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_build_or_well_before_the_journal_is_wrong() {
        let minute = 60_000_000;
        let now = BUILT_US + 1_000 * minute;
        assert_eq!(check(now, None), None);
        assert_eq!(check(now, Some(now + 4 * minute)), None);
        assert_eq!(check(BUILT_US - 1, None), Some(ImplausibleClock::BeforeBuild));
        let behind = Duration::from_mins(6);
        assert_eq!(check(now, Some(now + 6 * minute)), Some(ImplausibleClock::BeforeJournal { behind }));
        assert!(odograph_journal::unix_now_us() > BUILT_US, "it was built before it runs");
    }
}
