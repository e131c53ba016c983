//! Reads the state of Redis from outside: server, stream, group. It changes nothing and creates nothing.

use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::{Instant, timeout_at};

use super::link::{Link, LinkError, RedisUrl};
use super::reply::{self, EntryId, Malformed};

/// The names to inspect.
#[derive(Clone, Copy, Debug)]
pub struct StreamNames<'a> {
    /// The stream of flags.
    pub stream: &'a str,
    /// The group on it.
    pub group: &'a str,
}

/// What Redis holds, and how it is set up.
#[derive(Clone, Debug, Default)]
pub struct RedisState {
    /// The version of Redis that the server says it is compatible with.
    pub version: String,
    /// Whether it follows another server and refuses writes.
    pub replica: bool,
    /// Its eviction policy for when memory is short.
    pub policy: String,
    /// Its memory limit in bytes; 0 is none.
    pub max_memory: u64,
    /// Whether it keeps an append-only file.
    pub append_only: bool,
    /// Whether it takes snapshots; `None` if the server does not say.
    pub snapshots: Option<bool>,
    /// Whether its last write to disk failed.
    pub disk_failed: bool,
    /// The stream of flags; `None` if no key has its name.
    pub stream: Option<StreamState>,
    /// Other streams that hold flags, if this one never had any.
    pub elsewhere: Vec<String>,
    /// Entries in the dead-letter stream.
    pub dead: u64,
}

/// The stream of flags.
#[derive(Clone, Debug, Default)]
pub struct StreamState {
    /// Entries in it.
    pub length: u64,
    /// Whether it never had an entry.
    pub untouched: bool,
    /// The group; `None` if it does not exist.
    pub group: Option<GroupState>,
}

/// The consumer group.
#[derive(Clone, Debug, Default)]
pub struct GroupState {
    /// Consumers in it.
    pub consumers: u64,
    /// Entries read and not acknowledged.
    pub pending: u64,
    /// Entries not read.
    pub unread: u64,
    /// The age of the oldest of both.
    pub oldest: Option<Duration>,
}

/// Reads the state before the deadline.
///
/// # Errors
/// A sentence for the operator, without secrets.
pub async fn inspect(url: &RedisUrl, names: StreamNames<'_>, until: Instant) -> Result<RedisState, String> {
    match timeout_at(until, read_state(url, names)).await {
        Ok(inspected) => inspected.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

async fn read_state(url: &RedisUrl, names: StreamNames<'_>) -> Result<RedisState, LinkError> {
    let mut link = Link::open(url, COMMAND_TIMEOUT).await?;
    let info = text(link.query(&cmd("INFO")).await?)?;
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let failed = |name: &str| field(name).is_some_and(|state| state != "ok");
    let mut found = RedisState {
        version: field("redis_version").unwrap_or("unknown").to_owned(),
        replica: field("role").is_some_and(|role| role != "master"),
        policy: field("maxmemory_policy").unwrap_or("unknown").to_owned(),
        max_memory: field("maxmemory").and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
        append_only: field("aof_enabled") == Some("1"),
        disk_failed: failed("rdb_last_bgsave_status") || failed("aof_last_write_status"),
        ..RedisState::default()
    };
    // A hosting provider may forbid or rename the command.
    found.snapshots = match link.query(cmd("CONFIG").arg("GET").arg("save")).await {
        Ok(answer) => reply::pairs(answer)?.first().map(|(_, save)| !save.is_empty()),
        Err(_) => None,
    };
    found.stream = stream(&mut link, names).await?;
    if found.stream.as_ref().is_none_or(|stream| stream.untouched) {
        found.elsewhere = elsewhere(&mut link, names.stream).await?;
    }
    found.dead = reply::number(&link.query(cmd("XLEN").arg(format!("{}:dead", names.stream))).await?)?;
    Ok(found)
}

async fn stream(link: &mut Link, names: StreamNames<'_>) -> Result<Option<StreamState>, LinkError> {
    if text(link.query(cmd("TYPE").arg(names.stream)).await?)? == "none" {
        return Ok(None);
    }
    let state = reply::named(link.query(cmd("XINFO").arg("STREAM").arg(names.stream)).await?)?;
    Ok(Some(StreamState {
        length: reply::number(&reply::get(&state, "length")?)?,
        untouched: reply::text(reply::get(&state, "last-generated-id")?)? == "0-0",
        group: group(link, names).await?,
    }))
}

async fn group(link: &mut Link, names: StreamNames<'_>) -> Result<Option<GroupState>, LinkError> {
    for group in reply::list(link.query(cmd("XINFO").arg("GROUPS").arg(names.stream)).await?)? {
        let group = reply::named(group)?;
        if reply::text(reply::get(&group, "name")?)? != names.group {
            continue;
        }
        let delivered = reply::text(reply::get(&group, "last-delivered-id")?)?;
        let mut range = cmd("XRANGE");
        range.arg(names.stream).arg(format!("({delivered}")).arg("+").arg("COUNT").arg(COUNTED_MAX);
        let unread = reply::entries(link.query(&range).await?)?;
        let mut summary =
            reply::list(link.query(cmd("XPENDING").arg(names.stream).arg(names.group)).await?)?.into_iter();
        let pending = reply::number(&summary.next().ok_or(Malformed)?)?;
        let first = match summary.next() {
            None | Some(Value::Nil) => None,
            Some(id) => EntryId::parse(&reply::text(id)?),
        };
        let oldest = first.into_iter().chain(unread.first().map(|entry| entry.id)).min();
        return Ok(Some(GroupState {
            consumers: reply::number(&reply::get(&group, "consumers")?)?,
            pending,
            unread: u64::try_from(unread.len()).unwrap_or(u64::MAX),
            oldest: oldest.map(EntryId::age),
        }));
    }
    Ok(None)
}

/// Streams whose newest entry is a flag: the writer may use another name than we do. The search is bounded.
async fn elsewhere(link: &mut Link, ours: &str) -> Result<Vec<String>, LinkError> {
    let (mut cursor, mut found, mut inspected_keys) = ("0".to_owned(), Vec::new(), 0);
    for _ in 0..SCANS_MAX {
        let mut scan = cmd("SCAN");
        scan.arg(&cursor).arg("COUNT").arg(1_000).arg("TYPE").arg("stream");
        let mut answer = reply::list(link.query(&scan).await?)?.into_iter();
        cursor = text(answer.next().ok_or(Malformed)?)?;
        for key in reply::list(answer.next().ok_or(Malformed)?)? {
            // No setting can hold a name that is not text.
            let Ok(key) = text(key) else { continue };
            if key == ours || key.ends_with(":dead") || inspected_keys == STREAMS_MAX {
                continue;
            }
            inspected_keys += 1;
            let newest = link.query(cmd("XREVRANGE").arg(&key).arg("+").arg("-").arg("COUNT").arg(1)).await?;
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
        // RESP3 marks text for people this way.
        Value::VerbatimString { text, .. } => Ok(text),
        other => reply::text(other),
    }
}

const COMMAND_TIMEOUT: Duration = Duration::from_secs(4);
const COUNTED_MAX: usize = 10_000;
const SCANS_MAX: usize = 20;
const STREAMS_MAX: usize = 50;
