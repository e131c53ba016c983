//! What the flags' tasks are told.

use std::path::Path;
use std::time::Duration;

use super::link::RedisUrl;
use crate::config::Settings;
use crate::store::DatabaseUrl;

/// Where flags come from and go to.
#[derive(Clone, Debug)]
pub struct FlagSettings {
    /// Where ledger and positions are.
    pub database: DatabaseUrl,
    /// `None`: no stream, reconciliation alone.
    pub redis: Option<RedisUrl>,
    /// The stream of changes.
    pub stream: String,
    /// The consumer group.
    pub group: String,
    /// This consumer's name in it. The same after each start, and nobody else's.
    pub consumer: String,
    /// The stream that says which windows changed.
    pub corrected: String,
}

impl FlagSettings {
    /// From the settings of the service.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            database: settings.database_url.clone(),
            redis: settings.redis_url.clone(),
            stream: settings.flags_stream.clone(),
            group: settings.flags_group.clone(),
            consumer: consumer_name(&settings.data_dir),
            corrected: settings.corrected_stream.clone(),
        }
    }

    /// The stream of entries that cannot be read.
    pub(super) fn dead(&self) -> String {
        format!("{}:dead", self.stream)
    }
}

/// Host and data directory: two processes never share the latter, and a restarted one has it again.
fn consumer_name(data_dir: &Path) -> String {
    let directory = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    format!("{host}-{:08x}", crc32fast::hash(directory.as_os_str().as_encoded_bytes()))
}

/// How often things are done. Only tests need another one.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a read waits for new entries. A stop does not wait for it.
    pub block: Duration,
    /// Entries that one read takes, and so the largest group that is applied together.
    pub group: usize,
    /// Groups that are not full begin at least so far apart, and so do tellings of corrections: each costs the database a
    /// few commits, however small it is.
    pub gather: Duration,
    /// Entries that somebody took so long ago and never acknowledged are claimed: longer than a group takes.
    pub claim_idle: Duration,
    /// How often silent consumers are looked for.
    pub claim_every: Duration,
    /// How often the ledger is compared with Directus' side.
    pub reconcile_every: Duration,
    /// How often corrections of other processes are looked for; one's own are told at once.
    pub publish_every: Duration,
    /// How often the group's state is measured.
    pub watch_every: Duration,
    /// A consumer that was silent for so long and has nothing pending is removed.
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
