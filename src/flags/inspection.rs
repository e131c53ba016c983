//! A look at Redis from outside: server, stream, group. Changes nothing, and makes nothing that is not there.

use std::time::{Duration, SystemTime};

use redis::{Value, cmd};
use tokio::time::{Instant, timeout_at};

use super::link::{Link, LinkError, RedisUrl};
use super::reply::{self, EntryId, Malformed};

/// Names to look for.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The stream of flags.
    pub stream: &'a str,
    /// The group on it.
    pub group: &'a str,
}

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The version of Redis whose commands it has.
    pub version: String,
    /// It follows another server and takes no writes.
    pub replica: bool,
    /// What it gives away when memory is short.
    pub policy: String,
    /// Bound of its memory; 0 is none.
    pub max_memory: u64,
    /// An append-only file is kept.
    pub append_only: bool,
    /// Snapshots are made; `None` where that may not be asked.
    pub snapshots: Option<bool>,
    /// The last write to its disk failed.
    pub disk_failed: bool,
    /// The stream of flags; `None` where no key has its name.
    pub stream: Option<Stream>,
    /// Other streams that hold flags, where this one never had any.
    pub elsewhere: Vec<String>,
    /// Flags that could not be read.
    pub dead: u64,
}

/// The stream of flags.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Entries in it.
    pub length: u64,
    /// It never had an entry.
    pub untouched: bool,
    /// The group; `None` where it is not made.
    pub group: Option<Group>,
}

/// The consumer group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Consumers that belong to it.
    pub consumers: u64,
    /// Entries that were read and not acknowledged.
    pub pending: u64,
    /// Entries that were not read.
    pub unread: u64,
    /// How long the oldest of both has been waiting.
    pub oldest: Option<Duration>,
}

/// Asks, within the time given.
///
/// # Errors
/// A sentence without secrets.
pub async fn survey(url: &RedisUrl, names: Names<'_>, until: Instant) -> Result<Survey, String> {
    match timeout_at(until, look(url, names)).await {
        Ok(looked) => looked.map_err(|wrong| wrong.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

async fn look(url: &RedisUrl, names: Names<'_>) -> Result<Survey, LinkError> {
    let mut link = Link::open(url, PATIENCE).await?;
    let info = text(link.ask(&cmd("INFO")).await?)?;
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let failed = |name: &str| field(name).is_some_and(|state| state != "ok");
    let mut found = Survey {
        version: field("redis_version").unwrap_or("unknown").to_owned(),
        replica: field("role").is_some_and(|role| role != "master"),
        policy: field("maxmemory_policy").unwrap_or("unknown").to_owned(),
        max_memory: field("maxmemory").and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
        append_only: field("aof_enabled") == Some("1"),
        disk_failed: failed("rdb_last_bgsave_status") || failed("aof_last_write_status"),
        ..Survey::default()
    };
    // It may be forbidden, or renamed by a hoster.
    found.snapshots = match link.ask(cmd("CONFIG").arg("GET").arg("save")).await {
        Ok(answer) => reply::pairs(answer)?.first().map(|(_, save)| !save.is_empty()),
        Err(_) => None,
    };
    found.stream = stream(&mut link, names).await?;
    if found.stream.as_ref().is_none_or(|stream| stream.untouched) {
        found.elsewhere = elsewhere(&mut link, names.stream).await?;
    }
    found.dead = reply::number(&link.ask(cmd("XLEN").arg(format!("{}:dead", names.stream))).await?)?;
    Ok(found)
}

async fn stream(link: &mut Link, names: Names<'_>) -> Result<Option<Stream>, LinkError> {
    if text(link.ask(cmd("TYPE").arg(names.stream)).await?)? == "none" {
        return Ok(None);
    }
    let state = reply::named(link.ask(cmd("XINFO").arg("STREAM").arg(names.stream)).await?)?;
    Ok(Some(Stream {
        length: reply::number(&reply::get(&state, "length")?)?,
        untouched: reply::text(reply::get(&state, "last-generated-id")?)? == "0-0",
        group: group(link, names).await?,
    }))
}

async fn group(link: &mut Link, names: Names<'_>) -> Result<Option<Group>, LinkError> {
    for group in reply::list(link.ask(cmd("XINFO").arg("GROUPS").arg(names.stream)).await?)? {
        let group = reply::named(group)?;
        if reply::text(reply::get(&group, "name")?)? != names.group {
            continue;
        }
        let delivered = reply::text(reply::get(&group, "last-delivered-id")?)?;
        let mut range = cmd("XRANGE");
        range.arg(names.stream).arg(format!("({delivered}")).arg("+").arg("COUNT").arg(COUNTED);
        let unread = reply::entries(link.ask(&range).await?)?;
        let mut summary = reply::list(link.ask(cmd("XPENDING").arg(names.stream).arg(names.group)).await?)?.into_iter();
        let pending = reply::number(&summary.next().ok_or(Malformed)?)?;
        let first = match summary.next() {
            None | Some(Value::Nil) => None,
            Some(id) => EntryId::parse(&reply::text(id)?),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let oldest = first.into_iter().chain(unread.first().map(|entry| entry.id)).min();
        return Ok(Some(Group {
            consumers: reply::number(&reply::get(&group, "consumers")?)?,
            pending,
            unread: u64::try_from(unread.len()).unwrap_or(u64::MAX),
            oldest: oldest.map(|id| now.saturating_sub(Duration::from_millis(id.ms))),
        }));
    }
    Ok(None)
}

/// Streams whose newest entry is a flag: where the writer uses another name than we do. A bounded look.
async fn elsewhere(link: &mut Link, ours: &str) -> Result<Vec<String>, LinkError> {
    let (mut cursor, mut found, mut looked_at) = ("0".to_owned(), Vec::new(), 0);
    for _ in 0..SCANS {
        let mut scan = cmd("SCAN");
        scan.arg(&cursor).arg("COUNT").arg(1_000).arg("TYPE").arg("stream");
        let mut answer = reply::list(link.ask(&scan).await?)?.into_iter();
        cursor = text(answer.next().ok_or(Malformed)?)?;
        for key in reply::list(answer.next().ok_or(Malformed)?)? {
            // A name that is no text is nobody's setting.
            let Ok(key) = text(key) else { continue };
            if key == ours || key.ends_with(":dead") || looked_at == STREAMS {
                continue;
            }
            looked_at += 1;
            let newest = link.ask(cmd("XREVRANGE").arg(&key).arg("+").arg("-").arg("COUNT").arg(1)).await?;
            let newest = reply::entries(newest)?.into_iter().find_map(|entry| entry.fields);
            let has = |name: &str| newest.iter().flatten().any(|(field, _)| field == name.as_bytes());
            if has("flag_id") && has("op") && has("new") {
                found.push(key);
            }
        }
        if cursor == "0" {
            break;
        }
    }
    Ok(found)
}

fn text(answer: Value) -> Result<String, Malformed> {
    match answer {
        // RESP3 says so of what is for people.
        Value::VerbatimString { text, .. } => Ok(text),
        other => reply::text(other),
    }
}

const PATIENCE: Duration = Duration::from_secs(4);
const COUNTED: usize = 10_000;
const SCANS: usize = 20;
const STREAMS: usize = 50;
