//! What the flags need to know: where flags come from and go to, and how often the tasks run.

use std::path::Path;
use std::time::Duration;

use super::link::RedisUrl;
use crate::store::DatabaseUrl;

/// Where flags come from and go to.
#[derive(Clone, Debug)]
pub struct FlagConfig {
    /// The database of the ledger and of the positions.
    pub database: DatabaseUrl,
    /// `None`: no stream, reconciliation alone.
    pub redis: Option<RedisUrl>,
    /// The stream of flag changes.
    pub stream: String,
    /// The consumer group.
    pub group: String,
    /// This consumer's name in the group, see [`consumer_name`].
    pub consumer: String,
    /// The stream of corrections: which windows changed.
    pub corrected: String,
}

impl FlagConfig {
    /// The dead-letter stream, for entries that cannot be read.
    pub(super) fn dead(&self) -> String {
        format!("{}:dead", self.stream)
    }
}

/// The consumer name of this process: host and data directory. It is the same after a restart, and no other process has it,
/// because two processes never share a data directory.
#[must_use]
pub fn consumer_name(data_dir: &Path) -> String {
    let directory = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    format!("{host}-{:08x}", crc32fast::hash(directory.as_os_str().as_encoded_bytes()))
}

/// Intervals and batch sizes of the tasks. Only tests change them.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a read waits for new entries. A stop interrupts it.
    pub block: Duration,
    /// Entries per read, and so the largest batch of flags that is applied together.
    pub group: usize,
    /// Minimum time between two batches that are not full, and between two publications of corrections: each costs the
    /// database a few commits, however small it is.
    pub gather: Duration,
    /// Age at which an unacknowledged entry of another consumer is claimed. It is longer than a batch takes.
    pub claim_idle: Duration,
    /// How often silent consumers are inspected for.
    pub claim_every: Duration,
    /// Interval between comparisons of the ledger with Directus' tables.
    pub reconcile_every: Duration,
    /// How often corrections of other processes are inspected for; one's own are told at once.
    pub publish_every: Duration,
    /// Interval between measurements of the group's lag.
    pub watch_every: Duration,
    /// Idle time after which a consumer with nothing pending is removed.
    pub forget_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            block: Duration::from_secs(2),
            group: 512,
            gather: Duration::from_millis(20),
            claim_idle: Duration::from_mins(1),
            claim_every: Duration::from_secs(20),
            reconcile_every: Duration::from_mins(5),
            publish_every: Duration::from_secs(2),
            watch_every: Duration::from_secs(5),
            forget_after: Duration::from_hours(24),
        }
    }
}
