//! The pause after a failure: longer each time, up to a bound, and random so that processes do not retry together.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Counts the failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }

    /// Returns the number of failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.0
    }

    /// Counts a failure, and returns the pause after it.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.0.min(DOUBLINGS)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
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
