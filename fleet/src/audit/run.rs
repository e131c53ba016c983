//! Reads the rows of a fleet once and compares them tracker by tracker.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::time::{Instant, sleep};

use super::compare::{self, Comparison};
use super::findings::Findings;
use super::range::FleetRange;
use super::rows::{positions, quarantined};
use crate::database::{DatabaseError, OpenDatabase};
use crate::report::TrackerReport;

/// Any failure to read.
pub type AuditError = DatabaseError;

/// Compares what the service acknowledged to the fleet with what the database holds now.
///
/// # Errors
/// When the database cannot be read.
pub async fn audit(target: &impl OpenDatabase, reports: &[TrackerReport]) -> Result<Findings, AuditError> {
    let mut findings = Findings::default();
    let Some(range) = FleetRange::of(reports) else { return Ok(findings) };
    let mut database = target.connect(CONNECTING).await?;
    let mut quarantine = target.connect(CONNECTING).await?;
    let mut rows = positions(&mut database, range).await?;
    let mut next = rows.try_next().await?;
    let mut reports: Vec<&TrackerReport> = reports.iter().collect();
    reports.sort_unstable_by_key(|report| report.route.imei());
    for report in reports {
        let mut comparison = Comparison::new(report, &mut findings);
        while let Some(row) = next.take_if(|row| row.imei <= comparison.imei()) {
            comparison.row(row);
            next = rows.try_next().await?;
        }
        let absent = comparison.end();
        if !absent.is_empty() {
            let records = quarantined(&mut quarantine, report.route.imei()).await?;
            compare::absent(report, &absent, &records, &mut findings);
        }
    }
    Ok(findings)
}

/// Repeats the audit while records are missing, as long as fewer go missing within `patience`: a service that acknowledges from
/// its journal can still be writing.
///
/// # Errors
/// When the database cannot be read.
pub async fn settled(
    target: &impl OpenDatabase,
    reports: &[TrackerReport],
    patience: Duration,
) -> Result<Findings, AuditError> {
    let (mut least, mut progress) = (u64::MAX, Instant::now());
    loop {
        let begun = Instant::now();
        let findings = audit(target, reports).await?;
        if findings.missing < least {
            (least, progress) = (findings.missing, Instant::now());
        }
        if findings.missing == 0 || progress.elapsed() >= patience {
            return Ok(findings);
        }
        // A large audit takes its share of the database that is still being written.
        sleep(BETWEEN_AUDITS.max(begun.elapsed())).await;
    }
}

const CONNECTING: &str = "connecting to the database for the audit";
const BETWEEN_AUDITS: Duration = Duration::from_millis(500);
