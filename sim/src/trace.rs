//! The steps of a schedule: for people to read, and to compare with another run of the same seed.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};

use crate::database::Fate;
use odograph_journal::WriterTurn;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Poll { process: usize, task: &'static str, number: usize },
    Serve { doing: &'static str, fate: Fate },
    Noticed { backend: u64, commits: bool },
    Take { process: usize },
    Wrote { process: usize, turn: Result<WriterTurn, &'static str> },
    SegmentTask { process: usize },
    Connect { tracker: usize, process: usize },
    Send { tracker: usize, what: &'static str, records: Vec<usize> },
    Hangup { tracker: usize, cut: bool },
    Arrive { connection: usize, bytes: usize },
    Reach { connection: usize, bytes: usize },
    Time { ms: u64 },
    Declare { flag: u128, seq: i64, events: usize },
    Fault(Fault),
    Start { process: usize, lanes: u16, opened: Result<u64, &'static str> },
    Rest,
}

/// A fault, or its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    Kill { process: usize },
    PowerCut { process: usize },
    PowerOffAfter { process: usize, operations: u64 },
    FailWriteAfter { process: usize, writes: u64 },
    FailSyncAfter { process: usize, syncs: u64 },
    DiskFull { process: usize },
    DiskRoom { process: usize },
    Stop { process: usize },
    Clone { process: usize },
    Refuse,
    Accept,
    RowsRefused,
    RowsTaken,
    RowsDropped,
    RowsKept,
    Restart,
    Snapshot,
    WentBack,
    Clock { seconds: i64 },
    StreamTrimmed,
}

impl Fault {
    /// Returns the name under which it is counted.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "process killed",
            Self::PowerCut { .. } => "power cut",
            Self::PowerOffAfter { .. } => "power off in the middle of disk operations",
            Self::FailWriteAfter { .. } => "write fails",
            Self::FailSyncAfter { .. } => "sync fails",
            Self::DiskFull { .. } => "disk full",
            Self::DiskRoom { .. } | Self::Accept | Self::RowsTaken | Self::RowsKept | Self::Snapshot => {
                "(end of a fault)"
            }
            Self::Stop { .. } => "orderly stop",
            Self::Clone { .. } => "directory copied, two processes",
            Self::Refuse => "database refuses connections",
            Self::RowsRefused => "database refuses rows",
            Self::RowsDropped => "a trigger drops rows",
            Self::Restart => "database restarts",
            Self::WentBack => "database goes back",
            Self::Clock { .. } => "clock jumps",
            Self::StreamTrimmed => "stream trimmed",
        }
    }
}

/// All steps of a schedule.
#[derive(Default)]
pub struct Trace {
    steps: Vec<Step>,
    pub faults: BTreeMap<&'static str, u64>,
    text: String,
    hasher: crc32fast::Hasher,
}

impl Trace {
    pub fn note(&mut self, step: Step) {
        match &step {
            Step::Fault(fault) => self.count(fault.kind()),
            Step::Serve { fate: Fate::NotAnswered, doing: "committing" } => self.count("answer of a commit lost"),
            Step::Serve { fate: Fate::NotAnswered, .. } => self.count("answer of the database lost"),
            Step::Serve { fate: Fate::NotSent, .. } => self.count("connection to the database broken"),
            Step::Serve { fate: Fate::Victim, .. } => self.count("victim of a deadlock"),
            Step::Noticed { commits: true, .. } => self.count("commit done after its client was gone"),
            Step::Hangup { .. } => self.count("link of a tracker lost"),
            _ => {}
        }
        self.text.clear();
        let _ = write!(self.text, "{step:?}");
        self.hasher.update(self.text.as_bytes());
        self.steps.push(step);
    }

    pub fn count(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Returns the number of steps so far.
    #[must_use]
    pub fn count_steps(&self) -> usize {
        self.steps.len()
    }

    /// Adds a result to the hash.
    pub fn seal(&mut self, result: &impl Hash) {
        struct Into<'a>(&'a mut crc32fast::Hasher);
        impl Hasher for Into<'_> {
            fn finish(&self) -> u64 {
                0
            }
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
        }
        result.hash(&mut Into(&mut self.hasher));
    }

    /// Returns a hash, which is the same for the same schedule.
    #[must_use]
    pub fn hash(&self) -> u32 {
        self.hasher.clone().finalize()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "{at:5} {step:?}"))
    }
}
