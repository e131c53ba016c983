//! A bound on the log lines that a peer can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets a few lines of one kind through in each interval, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Interval>);

#[derive(Debug, Default)]
struct Interval {
    begin: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    /// Whether a line may be written now. If so, returns the number of lines that were left out since the last one.
    pub(crate) fn allow(&self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&self, now: Instant) -> Option<u64> {
        let mut interval = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if interval.begin.is_none_or(|begin| now.duration_since(begin) >= INTERVAL) {
            (interval.begin, interval.lines) = (Some(now), 0);
        }
        if interval.lines == MAX_LINES {
            interval.left_out += 1;
            return None;
        }
        interval.lines += 1;
        Some(std::mem::take(&mut interval.left_out))
    }
}

const INTERVAL: Duration = Duration::from_secs(10);
const MAX_LINES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_of_an_interval_pass_and_the_next_one_counts_the_others() {
        let (limit, begin) = (LogLimit::default(), Instant::now());
        let allowed = (0..1_000).filter(|_| limit.allow_at(begin).is_some()).count();
        assert_eq!(allowed, 10);
        assert_eq!(limit.allow_at(begin + INTERVAL), Some(990));
        assert_eq!(limit.allow_at(begin + INTERVAL), Some(0));
    }
}
