//! Runs every check at once, within a bounded time.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::database_facts::DatabaseFacts;
use super::finding::{Check, Finding};
use super::settings::of_settings;
use super::{data_dir, devices, host, ingest, journal, redis, service};
use crate::config::{AckAfter, Lookup, Settings};
use crate::flags::{RedisState, StreamNames, inspect};
use crate::store::file_of;

/// All questions at once; within 15 seconds, whatever is away.
pub async fn check(settings: &Settings, lookup: &Lookup) -> Vec<Finding> {
    let until = Instant::now() + PATIENCE;
    let (dir, dir_too, listed) = (settings.data_dir.clone(), settings.data_dir.clone(), settings.data_dir.clone());
    let (directory, journal, remembered, service, database, redis) = tokio::join!(
        timeout_at(until, spawn_blocking(move || data_dir::read(&dir))),
        timeout_at(until, spawn_blocking(move || journal::read(&dir_too))),
        timeout_at(until, spawn_blocking(move || devices::remembered(&listed))),
        service::read(settings.admin_listen),
        DatabaseFacts::read(&settings.database_url, until),
        redis_state(settings, until),
    );
    let directory = directory.ok().and_then(Result::ok);
    let journal = journal.ok().and_then(Result::ok);
    let remembered = remembered.ok().and_then(Result::ok).flatten();
    let max = (settings.ack_after == AckAfter::Journal).then_some(settings.journal.max_bytes());
    let kept = journal.unwrap_or_default();

    let mut found = vec![of_settings(lookup)];
    found.extend(host::findings(settings, kept.kept.as_ref().and_then(|kept| kept.newest_us)));
    match &directory {
        Some(facts) => found.extend(data_dir::findings(facts, max, holds_store(settings))),
        None => found.extend(hangs()),
    }
    found.extend(journal::findings(&kept, max));
    found.push(journal::backlog(&kept, max, ingest::committed(&kept, &database.checkpoints())));
    found.extend(service::findings(&service));
    found.extend(database.findings(settings, &service));
    found.push(ingest::retention(settings));
    found.push(ingest::last_commit(&kept, &database.checkpoints(), &service));
    found.extend(database.flag_findings(settings, &service, remembered));
    found.extend(redis::findings(settings, redis.as_ref(), database.flags()));
    found.sort_by_key(|finding| finding.check as usize);
    found
}

/// Whether the embedded store lies in the data directory.
fn holds_store(settings: &Settings) -> bool {
    file_of(&settings.database_url).is_some_and(|path| path.starts_with(&settings.data_dir))
}

/// A file system that does not answer.
fn hangs() -> Vec<Finding> {
    let remedy = "the file system hangs: see the kernel's log, and the server behind a network mount";
    let rest = [Check::FileSystem, Check::DiskSync, Check::DiskRoom].map(|check| check.unknown("no answer in time"));
    [Check::DataDir.wrong("the data directory does not answer", remedy)].into_iter().chain(rest).collect()
}

async fn redis_state(settings: &Settings, until: Instant) -> Option<Result<RedisState, String>> {
    let url = settings.redis_url.as_ref()?;
    let names = StreamNames { stream: &settings.flags_stream, group: &settings.flags_group };
    Some(inspect(url, names, until).await)
}

/// Every question; connecting has less.
const PATIENCE: Duration = Duration::from_secs(12);
