//! Runs all trackers of a plan.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::TrackerReport;
use crate::tracker::Tracker;

/// Runs the fleet to the end of its plan or to the stop. Returns what was acknowledged to each tracker, by IMEI.
pub async fn run(plan: Plan, progress: Arc<Progress>, stop: CancellationToken) -> Vec<TrackerReport> {
    let mut trackers = JoinSet::new();
    for index in 0..plan.devices {
        let tracker = Tracker::new(plan, index, Arc::clone(&progress));
        trackers.spawn(tracker.run(stop.clone()));
    }
    let mut reports = Vec::new();
    while let Some(ended) = trackers.join_next().await {
        // Without the panic, a tracker that failed would look like one without acknowledged records.
        reports.push(ended.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())));
    }
    reports.sort_unstable_by_key(|report| report.route.imei());
    reports
}
