//! Polling for a state. No test sleeps for a time that it hopes is long enough.

use std::time::{Duration, Instant};

/// The longest wait for a state. A test that reaches it fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Polls until there is a value. Panics with `what` after [`PATIENCE`].
pub async fn eventually<T>(what: &str, poll: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, poll).await
}

/// Polls until there is a value. Panics with `what` after `patience`.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} for {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Polls until the condition holds. Panics with `what` after [`PATIENCE`].
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually(what, async || condition().await.then_some(())).await;
}

/// Between two polls.
pub(crate) const INTERVAL: Duration = Duration::from_millis(10);
