//! The service under measurement: the real binary in a directory of its own, what it says at `/metrics`, and its memory.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use odograph::admin_client::AdminClient;
use serde_json::Value as Json;

/// A running service, which ends with this value.
pub struct Service {
    child: Child,
    pub trackers: SocketAddr,
    pub admin: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Service {
    /// Starts it with an empty data directory and waits until it listens. The environment's own settings count, except those
    /// that a benchmark must fix.
    pub fn start(database_url: &str, more: &[(&str, &str)]) -> Self {
        let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_odograph"))
            .arg("serve")
            .env_remove("REDIS_URL")
            .env("DATABASE_URL", database_url)
            .env("ODOGRAPH_DATA_DIR", directory.path())
            .env("ODOGRAPH_LISTEN", "127.0.0.1:0")
            .env("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0")
            .env("ODOGRAPH_LOG_FORMAT", "json")
            .env("ODOGRAPH_TIME_WINDOW_PAST", "20000d")
            .env("ODOGRAPH_TIME_WINDOW_FUTURE", "20000d")
            .envs(more.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let up = lines
            .by_ref()
            .inspect(|line| eprintln!("{line}"))
            .find_map(|line| serde_json::from_str::<Json>(&line).ok().filter(|fields| fields["trackers"].is_string()))
            .expect("the service starts");
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
        let address = |name: &str| up[name].as_str().unwrap().parse().unwrap();
        Self { child, trackers: address("trackers"), admin: address("admin"), _directory: directory }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads `/metrics`.
    pub fn metrics(&self) -> Metrics {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = AdminClient::new(self.admin).with_timeout(ADMIN_TIMEOUT);
        let answer = runtime.block_on(client.get("/metrics")).unwrap();
        assert_eq!(answer.status, 200);
        Metrics::parse(&answer.body)
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

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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

    /// The sum over all labels; zero where there is none.
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

    /// A histogram since an earlier reading: how large a share was within so many milliseconds.
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
                // Nobody knows the end of the last bucket: say where it begins.
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

const ADMIN_TIMEOUT: Duration = Duration::from_mins(1);
