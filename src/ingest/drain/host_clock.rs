//! How this machine's wall clock ran since the start: where it was set, and by how much. A board without a battery boots hours
//! behind and is set right later; what the journal took in between has the receive times of the wrong clock.
//!
//! The clock of the database decides whether the present one is right. Only then are earlier receive times corrected.

use odograph_journal::Position;
use tokio::time::Instant;

/// The stretches in which the clock ran without a jump.
#[derive(Debug)]
pub(super) struct HostClock {
    started: Instant,
    /// Oldest first, at most [`RUNS_MAX`].
    runs: Vec<ClockRun>,
}

/// A stretch without a jump. Times in microseconds.
#[derive(Clone, Copy, Debug)]
struct ClockRun {
    /// Where the journal ended when it was noticed.
    from: Position,
    /// The wall clock when it was noticed, and when it was last looked at.
    wall_us: (i64, i64),
    /// Wall clock less time since the start, at the same moments.
    base_us: (i64, i64),
    /// The database's clock agreed meanwhile: its times are right, whatever comes later.
    is_verified: bool,
}

/// What to add to the receive times of entries.
#[derive(Debug)]
pub(super) struct ReceiveTimeShifts {
    runs: Vec<(ClockRun, i64)>,
}

impl HostClock {
    pub(super) fn new(wall_us: i64, end: Position) -> Self {
        let run = ClockRun::new(end, wall_us, wall_us);
        Self { started: Instant::now(), runs: vec![run] }
    }

    /// Looks at the clock. `end` is where the journal ends, asked only after a jump. Returns whether the clock was set.
    pub(super) fn observe(&mut self, wall_us: i64, end: impl FnOnce() -> Position) -> bool {
        let base = self.base_us(wall_us, Instant::now());
        let Some(run) = self.runs.last_mut() else { return false };
        if base.abs_diff(run.base_us.1) <= JUMP_US.unsigned_abs() {
            // A clock that is slewed moves slowly.
            (run.wall_us.1, run.base_us.1) = (wall_us, base);
            return false;
        }
        if self.runs.len() == RUNS_MAX {
            self.runs.remove(0);
        }
        self.runs.push(ClockRun::new(end(), wall_us, base));
        true
    }

    /// The database's clock showed the same time as this one, which was `wall_us` at `at`. Another lane may have seen a jump since.
    pub(super) fn verified(&mut self, wall_us: i64, at: Instant) {
        let base = self.base_us(wall_us, at);
        if let Some(run) = self.runs.last_mut().filter(|run| base.abs_diff(run.base_us.1) <= JUMP_US.unsigned_abs()) {
            run.is_verified = true;
        }
    }

    fn base_us(&self, wall_us: i64, at: Instant) -> i64 {
        let since_us = at.saturating_duration_since(self.started).as_micros();
        wall_us.saturating_sub(i64::try_from(since_us).unwrap_or(i64::MAX))
    }

    pub(super) fn is_verified(&self) -> bool {
        self.runs.last().is_some_and(|run| run.is_verified)
    }

    /// The shifts, if the clock was set since the start and is known to be right now.
    pub(super) fn shifts(&self) -> Option<ReceiveTimeShifts> {
        if !self.is_verified() || self.runs.iter().all(|run| run.is_verified) {
            return None;
        }
        let (mut runs, mut shift_us, mut later): (Vec<_>, i64, Option<ClockRun>) = (Vec::new(), 0, None);
        for run in self.runs.iter().rev() {
            // A machine that sleeps jumps too. What was right before stays right.
            shift_us =
                if run.is_verified { 0 } else { shift_us + later.map_or(0, |later| later.base_us.0 - run.base_us.1) };
            runs.push((*run, shift_us));
            later = Some(*run);
        }
        runs.reverse();
        Some(ReceiveTimeShifts { runs })
    }
}

impl ClockRun {
    const fn new(from: Position, wall_us: i64, base_us: i64) -> Self {
        Self { from, wall_us: (wall_us, wall_us), base_us: (base_us, base_us), is_verified: false }
    }
}

impl ReceiveTimeShifts {
    /// The receive time by the clock of today.
    pub(super) fn corrected(&self, position: Position, received_us: i64) -> i64 {
        let after = self.runs.partition_point(|(run, _)| run.from <= position);
        // An entry of an earlier process: nothing is known about its clock.
        let Some(here) = after.checked_sub(1) else { return received_us };
        // A jump is noticed a little late: the entry may have the time of the next run already.
        let distance = |(run, _): &&(ClockRun, i64)| {
            let (first, last) = run.wall_us;
            (first.saturating_sub(received_us)).max(received_us.saturating_sub(last)).max(0)
        };
        let found = self.runs.iter().skip(here).take(2).min_by_key(distance);
        found.map_or(received_us, |(_, shift_us)| received_us.saturating_add(*shift_us))
    }
}

/// More than any slewing between two looks, and less than what would matter to the time window.
pub(super) const JUMP_US: i64 = 60_000_000;
const RUNS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const TRUE: i64 = 1_800_000_000_000_000;

    #[tokio::test(start_paused = true)]
    async fn what_came_before_the_clock_was_set_gets_the_time_that_it_came_at() {
        let mut clock = HostClock::new(TRUE - 8 * HOUR, Position(1000));
        tokio::time::advance(Duration::from_secs(100)).await;
        clock.observe(TRUE - 8 * HOUR + 100_000_000, || Position(2000));
        tokio::time::advance(Duration::from_secs(3)).await;
        clock.observe(TRUE + 103_000_000, || Position(3000));
        clock.verified(TRUE - 8 * HOUR + 103_000_000, Instant::now());
        assert!(clock.shifts().is_none(), "nobody says that it is right now");
        clock.verified(TRUE + 103_000_000, Instant::now());
        let shifts = clock.shifts().unwrap();
        for (position, received, expected) in [
            // Of an earlier process.
            (900, TRUE - 8 * HOUR, TRUE - 8 * HOUR),
            (1000, TRUE - 8 * HOUR, TRUE),
            (2500, TRUE - 8 * HOUR + 101_000_000, TRUE + 101_000_000),
            // After the jump, before it was noticed.
            (2900, TRUE + 102_500_000, TRUE + 102_500_000),
            (3000, TRUE + 104_000_000, TRUE + 104_000_000),
        ] {
            assert_eq!(shifts.corrected(Position(position), received), expected, "at {position}");
        }
        // It goes forth and back: the sum counts.
        clock.observe(TRUE + HOUR + 103_000_000, || Position(4000));
        clock.observe(TRUE + 103_000_000, || Position(5000));
        assert!(clock.shifts().is_none());
        clock.verified(TRUE + 103_000_000, Instant::now());
        let shifts = clock.shifts().unwrap();
        assert_eq!(shifts.corrected(Position(1000), TRUE - 8 * HOUR), TRUE);
        assert_eq!(shifts.corrected(Position(4500), TRUE + HOUR + 103_000_000), TRUE + 103_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_slept_keeps_the_times_of_before() {
        let mut clock = HostClock::new(TRUE, Position(0));
        clock.verified(TRUE, Instant::now());
        // The time since the start does not go on in its sleep.
        clock.observe(TRUE + 8 * HOUR, || Position(1000));
        clock.verified(TRUE + 8 * HOUR, Instant::now());
        assert!(clock.shifts().is_none());
        // Now it is set wrong, and right again: only what came between is shifted.
        clock.observe(TRUE, || Position(2000));
        clock.observe(TRUE + 8 * HOUR, || Position(3000));
        clock.verified(TRUE + 8 * HOUR, Instant::now());
        let shifts = clock.shifts().unwrap();
        assert_eq!(shifts.corrected(Position(500), TRUE), TRUE);
        assert_eq!(shifts.corrected(Position(2500), TRUE), TRUE + 8 * HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_boots_in_1970_gets_the_time_of_today() {
        let second = 1_000_000;
        let mut clock = HostClock::new(0, Position(0));
        tokio::time::advance(Duration::from_secs(10)).await;
        clock.observe(TRUE - 8 * HOUR, || Position(100));
        tokio::time::advance(Duration::from_secs(10)).await;
        clock.observe(TRUE + 20 * second, || Position(200));
        clock.verified(TRUE + 20 * second, Instant::now());
        assert_eq!(clock.shifts().unwrap().corrected(Position(50), 5 * second), TRUE + 5 * second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_slewed_needs_no_shift() {
        let mut clock = HostClock::new(TRUE, Position(0));
        for second in 1..1000 {
            tokio::time::advance(Duration::from_secs(1)).await;
            clock.observe(TRUE + second * 1_010_000, || Position(0));
        }
        clock.verified(TRUE + 999 * 1_010_000, Instant::now());
        assert!(clock.shifts().is_none());
    }
}
