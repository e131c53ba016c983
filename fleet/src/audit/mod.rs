//! The audit: is every record that a tracker was told "accepted" for in the database, exactly once, with the values sent?
//!
//! It makes each record again from the tracker's route and compares it with the row, column by column, without the service's
//! own row building. Records that were sent and not answered may be there or not. Rows are streamed in the order of the key,
//! so memory is that of one tracker's findings, however many there are.

mod compare;
mod expected;
mod stored;

use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::time::{Instant, sleep};

use self::compare::Comparison;
use crate::Told;
use crate::database::{Connect, DatabaseError};

/// What the audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records that were acknowledged, each counted once.
    pub acknowledged: u64,
    /// Of these, neither in the table nor in quarantine.
    pub missing: u64,
    /// Rows too many: of a record's device time, when that record has its row already.
    pub twice: u64,
    /// Rows with other values than sent, whether their records were acknowledged or not.
    pub wrong: u64,
    /// Rows of the fleet's trackers since its start that no record explains.
    pub unknown: u64,
    /// Acknowledged records that are in quarantine and not in the table. They are kept, so this breaks no promise.
    pub quarantined: u64,
    /// Rows of the fleet's trackers since its start, acknowledged or not.
    pub stored: u64,
    /// The first few of what is missing, twice, wrong or unknown, in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// Whether the promise was kept.
    #[must_use]
    pub fn clean(&self) -> bool {
        (self.missing, self.twice, self.wrong, self.unknown) == (0, 0, 0, 0)
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < MOST_EXAMPLES {
            self.examples.push(text());
        }
    }
}

/// Any failure to read.
pub type AuditError = DatabaseError;

/// Audits what the fleet was told, as the database is now.
///
/// # Errors
/// When the database cannot be read.
pub async fn audit(target: &impl Connect, told: &[Told]) -> Result<Findings, AuditError> {
    let mut findings = Findings::default();
    let Some(range) = Range::of(told) else { return Ok(findings) };
    let mut database = target.connect(CONNECTING).await?;
    let mut quarantine = target.connect(CONNECTING).await?;
    let mut rows = database.positions(range).await?;
    let mut next = rows.try_next().await?;
    let mut told: Vec<&Told> = told.iter().collect();
    told.sort_unstable_by_key(|told| told.route.imei());
    for told in told {
        let mut comparison = Comparison::new(told, &mut findings);
        while let Some(row) = next.take_if(|row| row.imei <= comparison.imei()) {
            comparison.row(row);
            next = rows.try_next().await?;
        }
        let absent = comparison.end();
        if !absent.is_empty() {
            let kept = quarantine.quarantined(told.route.imei()).await?;
            compare::absent(told, &absent, &kept, &mut findings);
        }
    }
    Ok(findings)
}

/// Audits again and again while records are missing, as long as they get fewer within `patience`: a service that
/// acknowledges from its journal may still be writing.
///
/// # Errors
/// When the database cannot be read.
pub async fn settled(target: &impl Connect, told: &[Told], patience: Duration) -> Result<Findings, AuditError> {
    let (mut least, mut progress) = (u64::MAX, Instant::now());
    loop {
        let begun = Instant::now();
        let findings = audit(target, told).await?;
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

/// The IMEIs of a fleet, and the earliest device time among them.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: i64,
    last: i64,
    since_ms: i64,
}

impl Range {
    fn of(told: &[Told]) -> Option<Self> {
        let imeis = || told.iter().map(|told| key(told.route.imei().get()));
        let since_ms = told.iter().map(|told| key(told.route.timestamp_ms(0))).min()?;
        // A little more than needed: the database may round, and the comparison knows where each tracker began.
        Some(Self { first: imeis().min()?, last: imeis().max()?, since_ms: since_ms - 1 })
    }
}

/// As databases keep what is unsigned on the wire.
fn key(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const CONNECTING: &str = "connecting to the database for the audit";
const MOST_EXAMPLES: usize = 10;
const BETWEEN_AUDITS: Duration = Duration::from_millis(500);
