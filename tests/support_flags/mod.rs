//! What the tests of flags need: a Redis of their own that can be killed, a proxy that cuts, and the flags' tasks.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod cutter;
mod redis_server;
mod tasks;

pub(crate) use cutter::Cutter;
pub(crate) use redis_server::RedisServer;
pub(crate) use tasks::{Flags, PACE, Stream, fields, new, shared_redis};

use std::time::{Duration, Instant};

/// Longest wait for any state; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again and again until it is so; panics with `what` after [`PATIENCE`].
pub(crate) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
