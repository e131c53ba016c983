//! Compares the records of one tracker with its rows, both in the order of device time. Needs no database.

use std::collections::HashSet;

use teltonika_codecs::Imei;

use super::expected::{RowValues, wire};
use super::findings::Findings;
use super::range::signed;
use super::rows::PositionRow;
use crate::report::TrackerReport;

/// Compares one tracker.
pub(super) struct Comparison<'a> {
    report: &'a TrackerReport,
    findings: &'a mut Findings,
    /// The first record that is not compared yet.
    next: u64,
    /// Rows of one device time.
    group: Vec<RowValues>,
    /// Acknowledged records without a row.
    absent: Vec<u64>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(report: &'a TrackerReport, findings: &'a mut Findings) -> Self {
        findings.acknowledged += report.acknowledged();
        Self { report, findings, next: 0, group: Vec::new(), absent: Vec::new() }
    }

    pub(super) fn imei(&self) -> i64 {
        signed(self.report.route.imei().get())
    }

    /// Takes the next row. Ignores rows of another tracker or from before the fleet's start.
    pub(super) fn row(&mut self, row: PositionRow) {
        if row.imei != self.imei() || row.values.ts_us < self.sent_us(0) {
            return;
        }
        self.findings.stored += 1;
        if self.group.first().is_some_and(|first| first.ts_us != row.values.ts_us) {
            self.settle();
        }
        self.group.push(row.values);
    }

    /// Ends the comparison after the last row. Returns the acknowledged records without a row.
    pub(super) fn end(mut self) -> Vec<u64> {
        self.settle();
        self.skip_to(i64::MAX);
        self.absent
    }

    /// Device time of a record, microseconds.
    fn sent_us(&self, n: u64) -> i64 {
        signed(self.report.route.timestamp_ms(n)) * 1000
    }

    /// Passes the records before a device time: they have no row.
    fn skip_to(&mut self, ts_us: i64) {
        while self.next < self.report.sent_to() && self.sent_us(self.next) < ts_us {
            if self.report.is_acknowledged(self.next) {
                self.absent.push(self.next);
            }
            self.next += 1;
        }
    }

    /// Matches the rows of one device time with the records of that time: by fingerprint first, then what is left.
    fn settle(&mut self) {
        let mut rows = std::mem::take(&mut self.group);
        let Some(ts_us) = rows.first().map(|row| row.ts_us) else { return };
        self.skip_to(ts_us);
        let route = &self.report.route;
        let mut unmatched = Vec::new();
        let mut records = 0;
        while self.next < self.report.sent_to() && self.sent_us(self.next) == ts_us {
            let sent = RowValues::of(route, &route.record(self.next));
            match rows.iter().position(|row| row.fingerprint == sent.fingerprint) {
                Some(at) => check(&sent, &rows.swap_remove(at), route.imei(), self.findings),
                None => unmatched.push((self.next, sent)),
            }
            self.next += 1;
            records += 1;
        }
        // A record without a matching row can be stored under another fingerprint.
        for (n, sent) in unmatched {
            match rows.pop() {
                Some(row) => check(&sent, &row, route.imei(), self.findings),
                None if self.report.is_acknowledged(n) => self.absent.push(n),
                None => {}
            }
        }
        let (imei, left) = (route.imei(), rows.len() as u64);
        if left > 0 && records > 0 {
            self.findings.twice += left;
            self.findings.example(|| format!("{imei} at {ts_us} µs: {left} too many"));
        } else if left > 0 {
            self.findings.unknown += left;
            self.findings.example(|| format!("{imei} at {ts_us} µs: a row that no tracker sent"));
        }
        // Reuses the allocation.
        rows.clear();
        self.group = rows;
    }
}

fn check(sent: &RowValues, row: &RowValues, imei: Imei, findings: &mut Findings) {
    if sent != row {
        findings.wrong += 1;
        findings.example(|| format!("{imei} at {} µs: {}", sent.ts_us, sent.differences(row).join("; ")));
    }
}

/// Searches the quarantine for acknowledged records without a row, byte for byte.
pub(super) fn absent(report: &TrackerReport, absent: &[u64], quarantined: &HashSet<Vec<u8>>, findings: &mut Findings) {
    let route = &report.route;
    for n in absent {
        if quarantined.contains(&wire(route, &route.record(*n))) {
            findings.quarantined += 1;
        } else {
            findings.missing += 1;
            findings.example(|| format!("{} at {} µs: missing", route.imei(), route.timestamp_ms(*n) * 1000));
        }
    }
}
