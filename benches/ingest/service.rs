//! The measured service: the real binary in its own directory, its `/metrics`, and its memory.

use std::collections::BTreeMap;
use std::ops::Deref;

use odograph_testkit::{Launch, Odograph, ServiceProcess, get};

/// A running service, which ends with this value. Its log is printed then.
pub struct Service {
    process: ServiceProcess,
    _directory: tempfile::TempDir,
}

impl Service {
    /// Starts it with an empty data directory and waits until it listens. The environment's own settings count, except those
    /// that a benchmark must fix.
    pub fn start(database_url: &str, more: &[(&str, &str)]) -> Self {
        let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let program = Odograph::at(env!("CARGO_BIN_EXE_odograph"));
        let launch = Launch::new(program, database_url, &directory.path().join("data"));
        let launch = more.iter().fold(launch, |launch, (name, value)| launch.with(name, value));
        let process = launch.start_blocking(&directory.path().join("serve.log"));
        Self { process, _directory: directory }
    }

    /// Reads all of `/metrics`.
    pub fn metrics(&self) -> Metrics {
        let (status, body) = runtime().block_on(get(self.admin, "/metrics"));
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// Resident memory in KiB: at its peak, and now.
    pub fn memory_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        (field("VmHWM:"), field("VmRSS:"))
    }
}

impl Deref for Service {
    type Target = ServiceProcess;

    fn deref(&self) -> &ServiceProcess {
        &self.process
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        eprint!("{}", self.process.log());
    }
}

/// One reading of `/metrics`: each line's value by its name with labels.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Self(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// The sum over all labels, zero if there is none.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name =
            |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.0.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum()
    }

    pub fn counts(&self) -> Counts {
        let count = |name: &str| self.sum(&format!("odograph_records_{name}")) as u64;
        Counts {
            recovered: count("recovered_total"),
            journaled: count("journaled_total"),
            acknowledged: count("acknowledged_total"),
            committed: count("committed_total"),
            duplicate: count("duplicate_total"),
            quarantined: count("quarantined_total"),
            waiting: count("waiting"),
        }
    }

    /// Rows of a mean commit since an earlier reading.
    pub fn commit_rows_since(&self, before: &Self) -> f64 {
        let since = |name: &str| self.sum(name) - before.sum(name);
        since("odograph_commit_rows_sum") / since("odograph_commit_rows_count").max(1.0)
    }

    /// A histogram since an earlier reading: the share of samples within each number of milliseconds.
    pub fn shares_since(&self, before: &Self, name: &str) -> Vec<(f64, f64)> {
        let buckets = self.buckets_since(before, name);
        let all = buckets.last().map_or(1.0, |(_, all)| all.max(1.0));
        buckets.iter().filter(|(bound, _)| bound.is_finite()).map(|(bound, count)| (bound * 1e3, count / all)).collect()
    }

    /// The quantile of a histogram since an earlier reading, interpolated in its bucket; `None` without samples.
    pub fn quantile_since(&self, before: &Self, name: &str, share: f64) -> Option<f64> {
        let buckets = self.buckets_since(before, name);
        let all = buckets.last().filter(|(_, all)| *all > 0.0)?.1;
        let (mut lower, mut below) = (0.0, 0.0);
        for (upper, count) in buckets {
            if count >= share * all && count > below {
                // The last bucket has no end: return where it begins.
                let width = if upper.is_finite() { upper - lower } else { 0.0 };
                return Some(lower + width * (share * all - below) / (count - below));
            }
            (lower, below) = (upper, count);
        }
        None
    }

    /// Upper bounds, and the samples within each.
    fn buckets_since(&self, before: &Self, name: &str) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = self
            .0
            .iter()
            .filter_map(|(series, count)| {
                let bound =
                    series.strip_prefix(name)?.strip_prefix("_bucket{")?.split_once("le=\"")?.1.split('"').next()?;
                Some((bound.parse().ok()?, count - before.0.get(series).unwrap_or(&0.0)))
            })
            .collect();
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        buckets
    }
}

/// The record counters.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Counts {
    pub recovered: u64,
    pub journaled: u64,
    pub acknowledged: u64,
    pub committed: u64,
    pub duplicate: u64,
    pub quarantined: u64,
    pub waiting: u64,
}

impl Counts {
    /// Nothing is under way. An answer is counted just after it was written, so its reader can be ahead of the count.
    pub fn is_settled(&self, records: u64) -> bool {
        self.waiting == 0 && self.journaled >= records && self.acknowledged >= records
    }

    pub fn is_conserved(&self) -> bool {
        self.recovered + self.journaled == self.committed + self.duplicate + self.quarantined + self.waiting
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
