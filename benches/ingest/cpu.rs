//! Processor time: of the service by thread, and of the database server with all its processes.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value as Json, json};

/// Processor seconds of a process so far, whole and by the names of the threads that run now.
#[derive(Clone, Default)]
pub struct ProcessTime {
    pub all_s: f64,
    threads: BTreeMap<String, f64>,
}

impl ProcessTime {
    pub fn of(pid: u32) -> Self {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
            if let Some(stat) = Stat::read(&task.path().display().to_string()) {
                *threads.entry(stat.name.clone()).or_default() += stat.own_s;
            }
        }
        Self { all_s: Stat::read(&format!("/proc/{pid}")).map_or(0.0, |stat| stat.own_s), threads }
    }

    /// Seconds for a million records since an earlier reading.
    pub fn per_million_since(&self, before: &Self, records: u64) -> Json {
        let share = |now: f64, then: f64| thousandths((now - then) / (records as f64 / 1e6));
        let threads: BTreeMap<_, _> = self
            .threads
            .iter()
            .map(|(name, now)| (name.as_str(), share(*now, before.threads.get(name).copied().unwrap_or(0.0))))
            .filter(|(_, seconds)| *seconds > 0.0)
            .collect();
        json!({ "all": share(self.all_s, before.all_s), "threads": threads })
    }
}

/// The database server, if it runs on this machine. Other clients at the same time count too.
pub struct DatabaseServer {
    postmaster: Option<u32>,
}

impl DatabaseServer {
    /// The one that a backend belongs to.
    pub fn of_backend(pid: u32) -> Self {
        let backend = Stat::read(&format!("/proc/{pid}")).filter(|stat| stat.name == "postgres");
        Self { postmaster: backend.map(|stat| stat.parent) }
    }

    /// Processor seconds of all its processes so far, also of those that have ended.
    pub fn cpu_s(&self) -> Option<f64> {
        let postmaster = self.postmaster?;
        let own = Stat::read(&format!("/proc/{postmaster}"))?;
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let children = processes.filter_map(|entry| Stat::read(&entry.path().display().to_string()));
        Some(
            own.own_s
                + own.ended_s
                + children.filter(|stat| stat.parent == postmaster).map(|stat| stat.own_s).sum::<f64>(),
        )
    }
}

/// The fields of `/proc/…/stat`.
struct Stat {
    name: String,
    parent: u32,
    own_s: f64,
    /// Of children that have ended.
    ended_s: f64,
}

impl Stat {
    fn read(directory: &str) -> Option<Self> {
        let text = fs::read_to_string(format!("{directory}/stat")).ok()?;
        let (head, tail) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = tail.split(' ').collect();
        // Hundredths, as on every Linux that this runs on.
        let seconds = |at: usize| Some(fields.get(at)?.parse::<f64>().ok()? / 100.0);
        Some(Self {
            name: head.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            own_s: seconds(11)? + seconds(12)?,
            ended_s: seconds(13)? + seconds(14)?,
        })
    }
}

pub fn thousandths(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
