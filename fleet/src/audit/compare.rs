//! One tracker's records beside its rows, both in the order of device time. No database here.

use std::collections::HashSet;

use teltonika_codecs::Imei;

use super::expected::{Values, wire};
use super::{Findings, key};
use crate::Told;

/// A row of `positions`.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) imei: i64,
    pub(super) values: Values,
}

/// Compares one tracker.
pub(super) struct Comparison<'a> {
    told: &'a Told,
    findings: &'a mut Findings,
    /// The first record that was not looked for yet.
    next: u64,
    /// Rows of one device time.
    group: Vec<Values>,
    /// Acknowledged records without a row.
    absent: Vec<u64>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(told: &'a Told, findings: &'a mut Findings) -> Self {
        findings.acknowledged += told.acknowledged();
        Self { told, findings, next: 0, group: Vec::new(), absent: Vec::new() }
    }

    pub(super) fn imei(&self) -> i64 {
        key(self.told.route.imei().get())
    }

    /// Takes the next row; one of another tracker, or from before the fleet's start, is not its.
    pub(super) fn row(&mut self, row: Stored) {
        if row.imei != self.imei() || row.values.ts_us < self.sent_us(0) {
            return;
        }
        self.findings.stored += 1;
        if self.group.first().is_some_and(|first| first.ts_us != row.values.ts_us) {
            self.settle();
        }
        self.group.push(row.values);
    }

    /// No row comes any more. Gives the acknowledged records that have none.
    pub(super) fn end(mut self) -> Vec<u64> {
        self.settle();
        self.skip_to(i64::MAX);
        self.absent
    }

    /// Device time of a record, microseconds.
    fn sent_us(&self, n: u64) -> i64 {
        key(self.told.route.timestamp_ms(n)) * 1000
    }

    /// Records before a device time have no row.
    fn skip_to(&mut self, ts_us: i64) {
        while self.next < self.told.sent_to() && self.sent_us(self.next) < ts_us {
            if self.told.is_acknowledged(self.next) {
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
        let route = &self.told.route;
        let mut unmatched = Vec::new();
        let mut records = 0;
        while self.next < self.told.sent_to() && self.sent_us(self.next) == ts_us {
            let sent = Values::of(route, &route.record(self.next));
            match rows.iter().position(|row| row.fingerprint == sent.fingerprint) {
                Some(at) => check(&sent, &rows.swap_remove(at), route.imei(), self.findings),
                None => unmatched.push((self.next, sent)),
            }
            self.next += 1;
            records += 1;
        }
        // A record that has not its own row may stand there under another fingerprint.
        for (n, sent) in unmatched {
            match rows.pop() {
                Some(row) => check(&sent, &row, route.imei(), self.findings),
                None if self.told.is_acknowledged(n) => self.absent.push(n),
                None => {}
            }
        }
        let (imei, left) = (route.imei(), rows.len() as u64);
        if left > 0 && records > 0 {
            self.findings.twice += left;
            self.findings.example(|| format!("{imei} at {ts_us} µs: {left} too many"));
        } else if left > 0 {
            self.findings.unknown += left;
            self.findings.example(|| format!("{imei} at {ts_us} µs: a row that nobody sent"));
        }
        // Kept for its memory.
        rows.clear();
        self.group = rows;
    }
}

fn check(sent: &Values, row: &Values, imei: Imei, findings: &mut Findings) {
    if sent != row {
        findings.wrong += 1;
        findings.example(|| format!("{imei} at {} µs: {}", sent.ts_us, sent.differences(row).join("; ")));
    }
}

/// Looks for acknowledged records without a row among what is in quarantine, byte for byte.
pub(super) fn absent(told: &Told, absent: &[u64], quarantined: &HashSet<Vec<u8>>, findings: &mut Findings) {
    let route = &told.route;
    for n in absent {
        if quarantined.contains(&wire(route, &route.record(*n))) {
            findings.quarantined += 1;
        } else {
            findings.missing += 1;
            findings.example(|| format!("{} at {} µs: missing", route.imei(), route.timestamp_ms(*n) * 1000));
        }
    }
}
