//! Latencies of answers: counts in buckets of three percent, so that millions cost no memory.

use super::Quantiles;

pub(super) struct Latency {
    counts: Vec<u64>,
    max_ns: u64,
}

impl Latency {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; (64 << BITS) as usize], max_ns: 0 }
    }

    pub(super) fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// In milliseconds.
    pub(super) fn quantiles(&self) -> Quantiles {
        let all: u64 = self.counts.iter().sum();
        let within = |share: f64| {
            let (wanted, mut below) = (share * all as f64, 0);
            let bucket = self.counts.iter().position(|count| {
                below += count;
                below > 0 && below as f64 >= wanted
            });
            bucket.map_or(0.0, |bucket| middle_ns(bucket as u64).min(self.max_ns as f64) / 1e6)
        };
        Quantiles {
            p50: within(0.5),
            p90: within(0.9),
            p99: within(0.99),
            p999: within(0.999),
            max: self.max_ns as f64 / 1e6,
        }
    }

    /// The share of answers within each number of milliseconds: a point for each bucket that is not empty.
    pub(super) fn shares(&self) -> Vec<(f64, f64)> {
        let all: u64 = self.counts.iter().sum();
        let mut below = 0;
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled
            .map(|(bucket, count)| {
                below += count;
                (middle_ns(bucket as u64) / 1e6, below as f64 / all as f64)
            })
            .collect()
    }
}

/// The octave, and the bits behind its first.
fn bucket(ns: u64) -> usize {
    let ns = ns.max(1 << BITS);
    let octave = u64::from(ns.ilog2() - BITS);
    ((octave << BITS) + (ns >> octave & ((1 << BITS) - 1))) as usize
}

fn middle_ns(bucket: u64) -> f64 {
    let (octave, rest) = (bucket >> BITS, bucket & ((1 << BITS) - 1));
    ((1 << BITS) + rest) as f64 * (1_u64 << octave) as f64 + (1_u64 << octave) as f64 / 2.0
}

const BITS: u32 = 5;
