//! Which rows belong to a fleet.

use crate::report::TrackerReport;

/// The IMEIs of a fleet, and the earliest device time among them.
#[derive(Clone, Copy, Debug)]
pub(super) struct FleetRange {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) since_ms: i64,
}

impl FleetRange {
    /// `None` for a fleet without trackers.
    pub(super) fn of(reports: &[TrackerReport]) -> Option<Self> {
        let imeis = || reports.iter().map(|report| signed(report.route.imei().get()));
        let since_ms = reports.iter().map(|report| signed(report.route.timestamp_ms(0))).min()?;
        // A little more than needed: the database can round, and the comparison knows where each tracker began.
        Some(Self { first: imeis().min()?, last: imeis().max()?, since_ms: since_ms - 1 })
    }
}

/// A number that is unsigned on the wire, as databases store it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
