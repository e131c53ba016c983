//! The pause after a failure: longer each time, up to a bound, and random so that processes do not retry together.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Counts the failures in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    first: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::starting_at(FIRST)
    }
}

impl Backoff {
    /// The first pause is at most this long.
    pub(crate) const fn starting_at(first: Duration) -> Self {
        Self { failures: 0, first }
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns the number of failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure, and returns the pause after it.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let longest = self.first.saturating_mul(1 << self.failures.min(DOUBLINGS)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Counts a failure and waits, at most until the stop. Cancel-safe.
    pub(crate) async fn wait(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(self.next_pause()) => {}
            () = stop.cancelled() => {}
        }
    }
}

const FIRST: Duration = Duration::from_millis(50);
const DOUBLINGS: u32 = 10;
/// The longest time until a service that is back is noticed.
const LONGEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_the_first_to_the_longest() {
        let mut backoff = Backoff::starting_at(Duration::from_millis(100));
        for longest_ms in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let (pause, longest) = (backoff.next_pause(), Duration::from_millis(longest_ms));
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} of {longest:?}");
        }
        assert_eq!(backoff.failures(), 8);
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(100));
    }
}
