//! What the behaviour tests share: databases of their own, a service in this process or as the real binary, a tracker.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod database;
pub mod examples;
pub mod replay;
pub mod server;
pub mod service;
pub mod tracker;

use std::time::{Duration, Instant};

/// Longest wait for any state; a test that needs it has failed.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again and again until there is an answer; panics with `what` after [`PATIENCE`].
pub async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ask).await
}

/// The same, for what takes its time.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < patience, "waited {patience:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
