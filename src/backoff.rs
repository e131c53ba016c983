//! How long to wait after a failure: longer each time, up to a bound, and never the same for two processes.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    /// It went well.
    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }

    /// How many failures there were since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.0
    }

    /// Counts one more failure, and returns how long to wait after it.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.0.min(DOUBLINGS)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Waits after one more failure, at most until the stop. Cancel-safe.
    pub(crate) async fn wait(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(self.next_pause()) => {}
            () = stop.cancelled() => {}
        }
    }
}

const FIRST: Duration = Duration::from_millis(50);
const DOUBLINGS: u32 = 10;
/// What comes back is noticed within this.
const LONGEST: Duration = Duration::from_secs(5);
