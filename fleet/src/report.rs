//! What the service acknowledged.

use std::ops::Range;

use crate::backlog::Backlog;
use crate::route::Route;

/// What the service acknowledged to one tracker.
#[derive(Clone, Debug)]
pub struct TrackerReport {
    /// The tracker's route, from which its records follow.
    pub route: Route,
    low: u64,
    late: Range<u64>,
    sent_to: u64,
}

impl TrackerReport {
    /// A tracker whose first records were acknowledged, and which sent some more that were not answered.
    #[must_use]
    pub fn new(route: Route, acknowledged: u64, unanswered: u64) -> Self {
        let sent_to = acknowledged + unanswered;
        Self { route, low: acknowledged, late: acknowledged..acknowledged, sent_to }
    }

    pub(crate) fn of_backlog(route: Route, backlog: &Backlog) -> Self {
        let (low, late) = backlog.acknowledged_records();
        Self { route, low, late, sent_to: backlog.sent_to() }
    }

    /// Number of acknowledged records, each counted once.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.low + (self.late.end - self.late.start)
    }

    /// Whether record n was acknowledged.
    #[must_use]
    pub fn is_acknowledged(&self, n: u64) -> bool {
        n < self.low || self.late.contains(&n)
    }

    /// Records from this number on were never sent. Those below were sent, acknowledged or not.
    #[must_use]
    pub fn sent_to(&self) -> u64 {
        self.sent_to
    }
}
