//! Live counts of a running fleet, and how long answers took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Live counts of a running fleet.
#[derive(Debug)]
pub struct Progress {
    /// Records sent; a record that is sent again counts again.
    pub sent: AtomicU64,
    /// Records in acknowledged packets.
    pub acknowledged: AtomicU64,
    /// Connections made after the first.
    pub reconnects: AtomicU64,
    /// Packets by the time to their answer, in buckets a quarter of an octave wide.
    answers: [AtomicU64; BUCKETS],
}

impl Default for Progress {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { sent: zero(), acknowledged: zero(), reconnects: zero(), answers: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Progress {
    /// (sent, acknowledged, reconnects).
    #[must_use]
    pub fn read(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.sent), read(&self.acknowledged), read(&self.reconnects))
    }

    /// The time within which this percentage of packets was answered, at most a fifth too long. Zero without packets.
    #[must_use]
    pub fn answered_within(&self, percent: u64) -> Duration {
        let counts: Vec<u64> = self.answers.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() * percent).div_ceil(100).max(1);
        let mut below = 0;
        let bucket = counts.iter().position(|count| {
            below += count;
            below >= wanted
        });
        bucket.map_or(Duration::ZERO, |bucket| Duration::from_micros(upper_us(bucket)))
    }

    pub(super) fn connected(&self, again: bool) {
        self.reconnects.fetch_add(again.into(), Ordering::Relaxed);
    }

    pub(super) fn sent(&self, records: u8) {
        self.sent.fetch_add(records.into(), Ordering::Relaxed);
    }

    pub(super) fn acknowledged(&self, records: u8, took: Duration) {
        self.acknowledged.fetch_add(records.into(), Ordering::Relaxed);
        let bucket = bucket(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if let Some(count) = self.answers.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The octave, and the two bits after the leading one.
fn bucket(us: u64) -> usize {
    let us = us.max(4);
    let octave = us.ilog2();
    let quarter = us >> (octave - 2) & 3;
    let bucket = u64::from(octave - 2) * 4 + quarter;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The lower bound of the next bucket.
fn upper_us(bucket: usize) -> u64 {
    let (octave, quarter) = ((bucket + 1) / 4, (bucket + 1) as u64 % 4);
    (4 + quarter) << octave
}

/// Up to 2^27 µs: four times as long as a tracker waits.
const BUCKETS: usize = 104;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_lies_below_its_upper_end() {
        for us in [0, 4, 5, 7, 8, 100, 1_000, 4_095, 4_096, 30_000_000] {
            let bucket = bucket(us);
            assert!(us < upper_us(bucket) && (bucket == 0 || us >= upper_us(bucket - 1)), "{us} µs in {bucket}");
        }
    }

    #[test]
    fn percentiles_come_from_the_buckets() {
        let progress = Progress::default();
        assert_eq!(progress.answered_within(50), Duration::ZERO);
        for ms in 1..=100 {
            progress.acknowledged(10, Duration::from_millis(ms));
        }
        let (median, most) = (progress.answered_within(50), progress.answered_within(99));
        assert!((50..=60).contains(&median.as_millis()), "{median:?}");
        assert!((99..=120).contains(&most.as_millis()), "{most:?}");
        assert_eq!(progress.read(), (0, 1_000, 0));
    }
}
