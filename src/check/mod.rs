//! Whether an installation is sound: what an operator would look at one by one, asked at once and judged.
//!
//! Asking and judging are apart. A theme's `ask` or `look` gives facts or says why it has none, within a bounded time and without
//! changing anything (but for a small file in the data directory, written for a moment to time the disk). Its `judge` is a plain
//! function from facts to [`Finding`]s, with a remedy for everything that is not as it should be.
//!
//! - [`finding`](Finding): verdicts, and the list of checks
//! - `host`, `data_dir`, `journal`: this machine
//! - `service`: the running service, by its own account
//! - `database`, `schema`, `hypertable`, `ingest`, `flags`, `devices`: the database; `sqlite` where that is a file
//! - `redis`: the stream of flags

mod data_dir;
mod database;
mod devices;
mod finding;
mod flags;
mod host;
mod hypertable;
mod ingest;
mod journal;
mod redis;
mod schema;
mod service;
mod sqlite;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

pub use finding::{Check, Finding, Verdict};

use self::database::{Answer, Asker};
use crate::config::{AckAfter, Lookup, Mistakes, Settings};
use crate::flags::{RedisState, StreamNames, inspect};
use crate::store::{self, DatabaseUrl, PostgresUrl, file_of};

/// All questions at once; within 15 seconds, whatever is away.
pub async fn check(settings: &Settings, lookup: &Lookup) -> Vec<Finding> {
    let until = Instant::now() + PATIENCE;
    let (dir, dir_too, listed) = (settings.data_dir.clone(), settings.data_dir.clone(), settings.data_dir.clone());
    let (directory, journal, remembered, service, database, redis) = tokio::join!(
        timeout_at(until, spawn_blocking(move || data_dir::look(&dir))),
        timeout_at(until, spawn_blocking(move || journal::look(&dir_too))),
        timeout_at(until, spawn_blocking(move || devices::remembered(&listed))),
        service::ask(settings.admin_listen),
        Database::ask(&settings.database_url, until),
        redis(settings, until),
    );
    let directory = directory.ok().and_then(Result::ok);
    let journal = journal.ok().and_then(Result::ok);
    let remembered = remembered.ok().and_then(Result::ok).flatten();
    let max = (settings.ack_after == AckAfter::Journal).then_some(settings.journal.max_bytes());
    let kept = journal.unwrap_or_default();

    let mut found = vec![of_settings(lookup)];
    found.extend(host::judge(settings, kept.kept.as_ref().and_then(|kept| kept.newest_us)));
    match &directory {
        Some(facts) => found.extend(data_dir::judge(facts, max, holds_store(settings))),
        None => found.extend(hangs()),
    }
    found.extend(journal::judge(&kept, max));
    found.push(journal::backlog(&kept, max, ingest::committed(&kept, &database.checkpoints())));
    found.extend(service::judge(&service));
    found.extend(database.judge(settings, &service));
    found.push(ingest::retention(settings));
    found.push(ingest::last_commit(&kept, &database.checkpoints(), &service));
    found.extend(database.judge_flags(settings, &service, remembered));
    found.extend(redis::judge(settings, redis.as_ref(), database.flags()));
    found.sort_by_key(|finding| finding.check as usize);
    found
}

/// What is wrong with the settings, where nothing else can be asked.
#[must_use]
pub fn of_mistakes(mistakes: &Mistakes) -> Finding {
    let listed: Vec<_> = mistakes.0.iter().map(|mistake| format!("{}: {}", mistake.setting, mistake.what)).collect();
    let remedy = "correct them: docs/settings.md has ranges and units. Nothing else was looked at";
    Check::Settings.wrong(listed.join("; "), remedy)
}

/// Whether the embedded store lies in the data directory.
fn holds_store(settings: &Settings) -> bool {
    file_of(&settings.database_url).is_some_and(|path| path.starts_with(&settings.data_dir))
}

fn of_settings(lookup: &Lookup) -> Finding {
    let unknown: Vec<_> = lookup.unknown_variables().collect();
    if unknown.is_empty() {
        return Check::Settings.ok("right");
    }
    Check::Settings.note(
        format!("right, but {} {} no effect", unknown.join(", "), if unknown.len() == 1 { "has" } else { "have" }),
        "mistyped, or of another version: `odograph config show` prints what is in effect",
    )
}

/// A file system that does not answer.
fn hangs() -> Vec<Finding> {
    let remedy = "the file system hangs: see the kernel's log, and the server behind a network mount";
    let rest = [Check::FileSystem, Check::DiskSync, Check::DiskRoom].map(|check| check.unknown("no answer in time"));
    [Check::DataDir.wrong("the data directory does not answer", remedy)].into_iter().chain(rest).collect()
}

async fn redis(settings: &Settings, until: Instant) -> Option<Result<RedisState, String>> {
    let url = settings.redis_url.as_ref()?;
    let names = StreamNames { stream: &settings.flags_stream, group: &settings.flags_group };
    Some(inspect(url, names, until).await)
}

/// What the database said.
enum Database {
    /// It cannot be reached.
    Away(String),
    Server(Box<Answers>),
    File(PathBuf, Answer<Option<sqlite::Facts>>),
}

struct Answers {
    server: Answer<database::Server>,
    commit: Answer<String>,
    bytes: Answer<u64>,
    schema: schema::Facts,
    chunks: Answer<hypertable::Facts>,
    jobs: Answer<Vec<hypertable::Job>>,
    checkpoints: Answer<Vec<ingest::Checkpoint>>,
    quarantined: Answer<ingest::Quarantined>,
    flags: Answer<flags::Facts>,
    devices: Answer<Option<devices::Table>>,
}

impl Database {
    async fn ask(url: &DatabaseUrl, until: Instant) -> Self {
        let server = async |postgres: &PostgresUrl| Self::ask_server(url, postgres, until).await;
        let file = async |path: &Path| {
            let asked = timeout_at(until, sqlite::ask(path)).await;
            Self::File(path.to_owned(), asked.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        };
        store::inspect(url, server, file).await
    }

    async fn ask_server(url: &DatabaseUrl, postgres: &PostgresUrl, until: Instant) -> Self {
        match Asker::connect(postgres, until).await {
            Err(wrong) => Self::Away(wrong),
            Ok(asker) => match timeout_at(until, Box::pin(Answers::ask(&asker, url, postgres, until))).await {
                Ok(server) => Self::Server(Box::new(server)),
                Err(_) => Self::Away("it takes connections and does not answer in time".to_owned()),
            },
        }
    }

    fn checkpoints(&self) -> Answer<Vec<ingest::Checkpoint>> {
        match self {
            Self::Away(_) => Err(AWAY.to_owned()),
            Self::Server(server) => server.checkpoints.clone(),
            Self::File(_, Ok(facts)) => Ok(facts.as_ref().map(|facts| facts.checkpoints.clone()).unwrap_or_default()),
            Self::File(_, Err(wrong)) => Err(wrong.clone()),
        }
    }

    fn flags(&self) -> i64 {
        match self {
            Self::Server(server) => server.flags.as_ref().map_or(0, |facts| facts.flags),
            Self::Away(_) | Self::File(..) => 0,
        }
    }

    fn judge(&self, settings: &Settings, service: &service::Facts) -> Vec<Finding> {
        let shown = settings.database_url.to_string();
        match self {
            Self::Away(wrong) => {
                let rest = OF_SERVER.iter().map(|check| check.unknown(AWAY));
                [database::away(&shown, wrong)].into_iter().chain(rest).collect()
            }
            Self::File(path, facts) => {
                let quarantined = match facts {
                    Ok(facts) => Ok(facts.as_ref().map(|facts| facts.quarantined.clone()).unwrap_or_default()),
                    Err(wrong) => Err(wrong.clone()),
                };
                let mut found = sqlite::judge(path, facts);
                found.push(ingest::quarantine(&quarantined));
                found
            }
            Self::Server(server) => server.judge(&shown, settings, service),
        }
    }

    fn judge_flags(&self, settings: &Settings, service: &service::Facts, remembered: Option<Duration>) -> Vec<Finding> {
        match self {
            Self::File(..) => Vec::new(),
            Self::Away(_) => {
                let mut found = flags::judge(&Err(AWAY.to_owned()), settings.redis_url.is_some(), service.is_up());
                found.push(devices::judge(&Err(AWAY.to_owned()), remembered, settings.admission));
                found
            }
            Self::Server(server) => {
                let mut found = flags::judge(&server.flags, settings.redis_url.is_some(), service.is_up());
                found.push(devices::judge(&server.devices, remembered, settings.admission));
                found
            }
        }
    }
}

impl Answers {
    async fn ask(asker: &Asker, url: &DatabaseUrl, postgres: &PostgresUrl, until: Instant) -> Self {
        let (server, commit, bytes, schema, chunks, jobs, checkpoints, quarantined, flags, devices) = tokio::join!(
            database::ask(asker),
            database::default_commit(postgres, until),
            database::database_size(asker),
            schema::ask(asker, url),
            hypertable::ask(asker),
            hypertable::ask_jobs(asker),
            ingest::ask_checkpoints(asker),
            ingest::ask_quarantined(asker),
            flags::ask(asker),
            devices::ask(asker),
        );
        Self { server, commit, bytes, schema, chunks, jobs, checkpoints, quarantined, flags, devices }
    }

    fn judge(&self, shown: &str, settings: &Settings, service: &service::Facts) -> Vec<Finding> {
        // A lane each, flags and reconciliation, and retention now and then; a service that runs has them already.
        let needed = if service.is_up() { 1 } else { i64::from(settings.lanes) + 4 };
        let (mut found, buffers) = match &self.server {
            Ok(server) => (database::judge(shown, server, &self.commit, &self.bytes, needed), server.shared_buffers),
            Err(wrong) => {
                let rest = OF_SERVER.iter().take_while(|check| **check != Check::Schema);
                let rest = rest.map(|check| check.unknown("the server does not say"));
                ([database::away(shown, wrong)].into_iter().chain(rest).collect(), 0)
            }
        };
        found.extend(schema::judge(&self.schema, settings.retention.positions.is_some()));
        if self.schema.hypertable() {
            found.extend(hypertable::judge(&self.chunks, &self.jobs, buffers));
        } else {
            found.extend(hypertable::none());
        }
        found.push(ingest::quarantine(&self.quarantined));
        found
    }
}

const AWAY: &str = "the database does not answer";
/// What only a server that answers can say, beside flags and devices.
const OF_SERVER: [Check; 15] = [
    Check::DatabaseClock,
    Check::DatabaseTls,
    Check::Fsync,
    Check::FullPageWrites,
    Check::SynchronousCommit,
    Check::Autovacuum,
    Check::Connections,
    Check::DatabaseDisk,
    Check::Schema,
    Check::Privileges,
    Check::Licence,
    Check::Chunks,
    Check::ChunkInterval,
    Check::Jobs,
    Check::Quarantine,
];
/// Every question; connecting has less.
const PATIENCE: Duration = Duration::from_secs(12);
