//! Decides whether a lane has to wait because a clock is wrong: this machine's own, which judges device times, is compared with
//! what is known of it and with the clock of the database server.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::clock::{ClockFault, TOLERANCE};
use super::host_clock::JUMP_US;
use super::source::EntrySource;
use super::store_health::StoreHealth;
use crate::backoff::Backoff;
use crate::store::Store;

/// The comparison of one lane.
pub(super) struct ClockWatch {
    started: Instant,
    /// Wall clock less time since the start, at the last look. It moves when the clock is set.
    base_us: Option<i64>,
    compared_at: Option<Instant>,
    /// How far the server's clock is ahead of this machine's for certain; `None` if it has none.
    apart_us: Option<i64>,
    backoff: Backoff,
}

impl Default for ClockWatch {
    fn default() -> Self {
        let backoff = Backoff::default();
        Self { started: Instant::now(), base_us: None, compared_at: None, apart_us: None, backoff }
    }
}

impl ClockWatch {
    /// Whether the lane has to wait, after a pause. After the clock was set, it waits for the next comparison.
    pub(super) async fn must_wait<S: Store, F: EntrySource>(
        &mut self,
        store: &mut S,
        source: &mut F,
        health: &mut StoreHealth,
    ) -> bool {
        if source.accepts_clock() {
            return false;
        }
        if self.was_set(source) {
            self.compared_at = None;
        }
        self.base_us = Some(self.base_us(source));
        // Also when the server decides: the source remembers how the clock ran.
        let implausible = source.implausible_clock();
        let every = if self.is_apart() { COMPARE_APART } else { COMPARE };
        if self.compared_at.is_none_or(|at| at.elapsed() >= every) {
            let (asked_us, asked_at) = (source.wall_us(), Instant::now());
            match store.server_now_us().await {
                Ok(server_us) => {
                    self.apart_us = server_us.map(|server_us| apart(asked_us, server_us, source.wall_us()));
                }
                // The last comparison holds, unless the clock was set since.
                Err(error) if self.compared_at.is_none() => {
                    health.wait_after(&error, &mut self.backoff).await;
                    return true;
                }
                Err(_) => {}
            }
            self.backoff.reset();
            self.compared_at = Some(Instant::now());
            if self.apart_us.is_some() && !self.is_apart() {
                source.clock_is_verified(asked_us, asked_at);
            }
        }
        let fault = match self.apart_us {
            Some(apart_us) if self.is_apart() => Some(ClockFault::ApartFromServer { seconds: apart_us / 1_000_000 }),
            // Two clocks that agree are right, whatever the journal or the build of this program says.
            Some(_) => None,
            None => implausible.map(ClockFault::Implausible),
        };
        health.clock_fault(fault);
        if fault.is_some() {
            sleep(RETRY).await;
        }
        fault.is_some()
    }

    /// Whether the clock was set since it was looked at: entries that were read meanwhile may have the time of another clock.
    pub(super) fn was_set<F: EntrySource>(&self, source: &F) -> bool {
        self.base_us.is_some_and(|before| before.abs_diff(self.base_us(source)) > JUMP_US.unsigned_abs())
    }

    fn base_us<F: EntrySource>(&self, source: &F) -> i64 {
        let since_us = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        source.wall_us().saturating_sub(since_us)
    }

    fn is_apart(&self) -> bool {
        self.apart_us.is_some_and(|apart_us| u128::from(apart_us.unsigned_abs()) > TOLERANCE.as_micros())
    }
}

/// How far the server is ahead for certain: it read its clock between asking and answering.
fn apart(asked_us: i64, server_us: i64, answered_us: i64) -> i64 {
    if server_us > answered_us {
        server_us.saturating_sub(answered_us)
    } else if server_us < asked_us {
        server_us.saturating_sub(asked_us)
    } else {
        0
    }
}

const COMPARE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);
const COMPARE_APART: Duration = Duration::from_secs(1);
