//! Which moment retention takes for now.
//!
//! Time stands still at the oldest frame that waits in the journal: a position that was young enough on arrival does
//! not find its chunk gone, however long the database was away. And two clocks have to agree, so that a wrong one
//! empties no table.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of this machine, and the receive time of the oldest frame that is not in the database yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionClock {
    now: SystemTime,
    waiting_since: Option<SystemTime>,
}

/// Why something was not deleted although it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionRefusal {
    /// One of the clocks is wrong, and it is unknown which: nothing was deleted.
    #[error(
        "the clock of the database server is {} {} this machine's: nothing is deleted until they agree; set both by \
         NTP",
        humantime::format_duration(Duration::from_secs(by.as_secs())), if *ahead { "ahead of" } else { "behind" }
    )]
    Clocks {
        /// Whether the server's clock shows the later time.
        ahead: bool,
        /// By how much.
        by: Duration,
    },
    /// Frames have waited in the journal for so long that it makes a difference.
    #[error(
        "frames have been waiting in the journal since {}: nothing that they may belong to is deleted until they are \
         in the database",
        humantime::format_rfc3339_seconds(*since)
    )]
    Waiting {
        /// When the oldest of them was received.
        since: SystemTime,
    },
}

impl RetentionClock {
    /// Takes `now` from this machine's clock, and the receive time of the oldest frame that is not in the database, if
    /// any.
    #[must_use]
    pub const fn new(now: SystemTime, waiting_since: Option<SystemTime>) -> Self {
        Self { now, waiting_since }
    }

    /// Takes the earlier of this clock and the server's.
    ///
    /// # Errors
    /// When the two are too far apart for both to be right.
    pub(crate) fn with_server(self, server: SystemTime) -> Result<Self, RetentionRefusal> {
        let (ahead, by) = match server.duration_since(self.now) {
            Ok(by) => (true, by),
            Err(behind) => (false, behind.duration()),
        };
        if by > CLOCK_SKEW_MAX {
            return Err(RetentionRefusal::Clocks { ahead, by });
        }
        Ok(Self { now: self.now.min(server), ..self })
    }

    /// What is older than this may be deleted: time stands still at the oldest waiting frame.
    pub(crate) fn bound(&self, age: Duration) -> SystemTime {
        before(self.waiting_since.map_or(self.now, |since| since.min(self.now)), age)
    }

    /// What is older than this would be deleted if nothing waited.
    pub(crate) fn wanted(&self, age: Duration) -> SystemTime {
        before(self.now, age)
    }

    /// The reason to report if the two differ. Under load something always waits for a moment, which is not worth a
    /// report.
    pub(crate) fn waiting(&self) -> Option<RetentionRefusal> {
        let since = self.waiting_since?;
        let is_long = self.now.duration_since(since).is_ok_and(|waited| waited > USUAL_WAIT);
        is_long.then_some(RetentionRefusal::Waiting { since })
    }
}

fn before(time: SystemTime, age: Duration) -> SystemTime {
    time.checked_sub(age).unwrap_or(UNIX_EPOCH)
}

/// Clocks set by NTP are milliseconds apart, and clocks set by hand minutes.
const CLOCK_SKEW_MAX: Duration = Duration::from_hours(1);
/// How long frames may wait before readiness reports a backlog.
const USUAL_WAIT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: u32) -> SystemTime {
        UNIX_EPOCH + 500_000 * HOUR + hours * HOUR
    }

    #[test]
    fn time_stands_still_at_the_oldest_frame_that_waits() {
        let idle = RetentionClock::new(at(100), None);
        assert_eq!((idle.bound(HOUR), idle.waiting()), (at(99), None));
        let behind = RetentionClock::new(at(100), Some(at(70)));
        assert_eq!((behind.bound(HOUR), behind.wanted(HOUR)), (at(69), at(99)));
        assert_eq!(behind.waiting(), Some(RetentionRefusal::Waiting { since: at(70) }));
        let usual = RetentionClock::new(at(100), Some(at(100) - Duration::from_secs(5)));
        assert_eq!(usual.waiting(), None);
        // A clock that was set back since then.
        assert_eq!(RetentionClock::new(at(100), Some(at(101))).bound(HOUR), at(99));
    }

    #[test]
    fn clocks_that_disagree_by_more_than_an_hour_delete_nothing() {
        let present = RetentionClock::new(at(100), None);
        let minutes = |minutes| Duration::from_mins(minutes);
        assert_eq!(present.with_server(at(100) + minutes(59)), Ok(present), "the earlier one counts");
        let earlier = RetentionClock::new(at(100) - minutes(59), None);
        assert_eq!(present.with_server(at(100) - minutes(59)), Ok(earlier));
        let year = Duration::from_hours(24 * 365);
        assert_eq!(present.with_server(at(100) + year), Err(RetentionRefusal::Clocks { ahead: true, by: year }));
        assert_eq!(present.with_server(at(98)), Err(RetentionRefusal::Clocks { ahead: false, by: 2 * HOUR }));
        let text = RetentionRefusal::Clocks { ahead: true, by: 2 * HOUR }.to_string();
        assert!(text.contains("is 2h ahead of this machine's"), "{text}");
    }
}
