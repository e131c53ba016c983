//! What a lane reports about its store: readiness reasons, metrics, and the pause after a failure.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::clock::ClockFault;
use super::metrics::DrainMetrics;
use crate::backoff::Backoff;
use crate::health::{Health, Reason};
use crate::metrics::Tally;
use crate::store::{ErrorClass, StoreError};

/// Where a lane reports to.
#[derive(Clone)]
pub struct LaneReports {
    /// Metrics of the drain.
    pub metrics: DrainMetrics,
    /// Counts of records.
    pub tally: Arc<Tally>,
    /// Readiness.
    pub health: Arc<Health>,
}

/// The state of the store as one lane sees it.
pub(super) struct StoreHealth {
    pub(super) reports: LaneReports,
    lane: u16,
    held_since: Option<Instant>,
}

impl StoreHealth {
    pub(super) fn new(reports: LaneReports, lane: u16) -> Self {
        Self { reports, lane, held_since: None }
    }

    /// Raises or clears a readiness reason of this lane.
    pub(super) fn set(&self, reason: Reason, holds: bool) {
        self.reports.health.set(reason, self.lane, holds);
    }

    /// Raises or clears the reason that a clock is wrong, and says once what is wrong with it.
    pub(super) fn clock_fault(&self, fault: Option<ClockFault>) {
        let held = self.reports.health.holds(Reason::Clock);
        self.set(Reason::Clock, fault.is_some());
        if let (Some(wrong), false) = (fault, held) {
            tracing::error!(
                ?wrong,
                "a clock is wrong; nothing is written to the database until it is right. If the journal or \
                 the database server is wrong instead, run `odograph serve --accept-clock`"
            );
        }
    }

    /// The store answered: clears the reasons of its failures.
    pub(super) fn store_is_up(&self) {
        self.set(Reason::StoreDown, false);
        self.set(Reason::StoreRefuses, false);
        let health = &self.reports.health;
        let down = health.holds(Reason::StoreDown) || health.holds(Reason::StoreRefuses);
        self.reports.metrics.store_up.set(if down { 0.0 } else { 1.0 });
    }

    /// Whether another session holds the lane. After a while that is a readiness reason.
    pub(super) fn lane_is_held(&mut self, held: bool) {
        if !held {
            self.held_since = None;
        }
        let since = held.then(|| *self.held_since.get_or_insert_with(Instant::now));
        self.set(Reason::JournalFenced, since.is_some_and(|since| since.elapsed() > HELD_AFTER));
    }

    /// Reports an error and waits: briefly and longer each time if it passes by itself, slowly if the operator must act.
    pub(super) async fn wait_after(&self, error: &StoreError, backoff: &mut Backoff) {
        self.reports.metrics.store_up.set(0.0);
        self.reports.metrics.store_error(error.class);
        let pause = match error.class {
            ErrorClass::Unavailable => backoff.next_pause(),
            ErrorClass::Refuses => SLOW_RETRY,
        };
        self.set(Reason::StoreDown, error.class == ErrorClass::Unavailable);
        self.set(Reason::StoreRefuses, error.class == ErrorClass::Refuses);
        tracing::warn!(class = %error.class, error = %error, cause = %error.source, retry_in = ?pause, "the store failed; nothing is lost");
        sleep(pause).await;
    }
}

/// A refusal does not pass by itself.
pub(super) const SLOW_RETRY: Duration = Duration::from_secs(5);
/// The server notices a lost connection, which holds its lane until then, sooner.
const HELD_AFTER: Duration = Duration::from_secs(45);
