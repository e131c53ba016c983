//! How far the group is behind, over a connection of its own, so that it is told also while the database is away. And
//! consumers that are gone for good are cleared away.
//!
//! Redis' own lag is wrong after a trim, so it counts only where an entry is really left; how long entries wait is taken
//! from their ids, which are times.

use std::time::{Duration, SystemTime};

use redis::{Pipeline, Value, cmd};

use super::link::{Link, LinkError, RedisUrl};
use super::reply::{self, EntryId, Malformed, Named};
use super::tasks::{ANSWER_PATIENCE, Shared};
use crate::backoff::Backoff;

/// Watches until the stop.
pub(super) async fn run(shared: &Shared, url: &RedisUrl) {
    let (mut backoff, mut link, mut checked) = (Backoff::default(), None, false);
    while !shared.stop.is_cancelled() {
        let looked = tokio::select! {
            looked = look(shared, url, &mut link, &mut checked) => looked,
            () = shared.stop.cancelled() => break,
        };
        if let Err(wrong) = looked {
            link = None;
            // The group is the consumer's to make, and the consumer speaks of a Redis that is away.
            tracing::debug!(cause = %wrong, "the state of the stream is not known");
            backoff.wait(&shared.stop).await;
            continue;
        }
        backoff.reset();
        tokio::select! {
            () = tokio::time::sleep(shared.pace.watch_every) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

async fn look(shared: &Shared, url: &RedisUrl, link: &mut Option<Link>, checked: &mut bool) -> Result<(), LinkError> {
    let link = match link.take() {
        Some(open) => link.insert(open),
        None => link.insert(Link::open(url, ANSWER_PATIENCE).await?),
    };
    if !*checked {
        warn_of_an_empty_stream(link, shared).await?;
        *checked = true;
    }
    measure(link, shared).await?;
    forget_silent(link, shared).await
}

/// A stream that never had an entry is likely to have another name.
async fn warn_of_an_empty_stream(link: &mut Link, shared: &Shared) -> Result<(), LinkError> {
    let stream = &shared.settings.stream;
    let state = reply::named(link.ask(cmd("XINFO").arg("STREAM").arg(stream)).await?)?;
    if reply::text(reply::get(&state, "last-generated-id")?)? == "0-0" {
        tracing::warn!(stream, "the stream of flags never had an entry: is this the name that Directus' hook uses?");
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; nobody has 2^53 entries")]
async fn measure(link: &mut Link, shared: &Shared) -> Result<(), LinkError> {
    let (stream, group) = (&shared.settings.stream, &shared.settings.group);
    let groups = reply::list(link.ask(cmd("XINFO").arg("GROUPS").arg(stream)).await?)?;
    let Some(state) = find(groups, group)? else { return Ok(()) };
    let delivered = reply::text(reply::get(&state, "last-delivered-id")?)?;
    let mut unread = cmd("XRANGE");
    unread.arg(stream).arg(format!("({delivered}")).arg("+").arg("COUNT").arg(1);
    let unread = reply::entries(link.ask(&unread).await?)?.first().map(|entry| entry.id);
    let lag = match (unread, reply::get(&state, "lag")) {
        (None, _) => 0,
        // Redis 7 says it where it can.
        (Some(_), Ok(Value::Int(lag @ 1..))) => u64::try_from(lag).unwrap_or(0),
        (Some(_), _) => count_unread(link, stream, &delivered).await?,
    };
    let (pending, oldest) = pending(link, stream, group).await?;
    shared.metrics.lag_entries.set(lag as f64);
    shared.metrics.pending.set(pending as f64);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let waits = |id: EntryId| now.saturating_sub(Duration::from_millis(id.ms)).as_secs_f64();
    shared.metrics.oldest.set(oldest.into_iter().chain(unread).min().map_or(0.0, waits));
    Ok(())
}

/// At least so many: counting stops where it would cost something.
async fn count_unread(link: &mut Link, stream: &str, delivered: &str) -> Result<u64, LinkError> {
    let mut range = cmd("XRANGE");
    range.arg(stream).arg(format!("({delivered}")).arg("+").arg("COUNT").arg(COUNTED_MAX);
    let entries = reply::entries(link.ask(&range).await?)?;
    Ok(u64::try_from(entries.len()).unwrap_or(u64::MAX))
}

/// How many entries are pending, and the oldest of them.
async fn pending(link: &mut Link, stream: &str, group: &str) -> Result<(u64, Option<EntryId>), LinkError> {
    let mut summary = reply::list(link.ask(cmd("XPENDING").arg(stream).arg(group)).await?)?.into_iter();
    let pending = reply::number(&summary.next().ok_or(Malformed)?)?;
    let oldest = match summary.next() {
        None | Some(Value::Nil) => None,
        Some(id) => EntryId::parse(&reply::text(id)?),
    };
    Ok((pending, oldest))
}

/// Removes consumers that were silent for long and hold nothing. The stream is watched in between: a consumer that comes
/// back in this moment would lose what it has just read.
async fn forget_silent(link: &mut Link, shared: &Shared) -> Result<(), LinkError> {
    let settings = &shared.settings;
    let silent = silent(link, shared).await?;
    if silent.is_empty() {
        return Ok(());
    }
    link.ask(cmd("WATCH").arg(&settings.stream)).await?;
    let still: Vec<_> = self::silent(link, shared).await?.into_iter().filter(|name| silent.contains(name)).collect();
    if still.is_empty() {
        link.ask(&cmd("UNWATCH")).await?;
        return Ok(());
    }
    let mut remove = Pipeline::new();
    remove.atomic();
    for name in &still {
        remove.cmd("XGROUP").arg("DELCONSUMER").arg(&settings.stream).arg(&settings.group).arg(name).ignore();
    }
    // Where the stream moved, nothing was done, and the next look tries again.
    link.together(&remove).await?;
    Ok(())
}

async fn silent(link: &mut Link, shared: &Shared) -> Result<Vec<Vec<u8>>, LinkError> {
    let settings = &shared.settings;
    let answer = link.ask(cmd("XINFO").arg("CONSUMERS").arg(&settings.stream).arg(&settings.group)).await?;
    let mut silent = Vec::new();
    for consumer in reply::list(answer)? {
        let consumer = reply::named(consumer)?;
        let name = reply::get(&consumer, "name")?;
        let idle = Duration::from_millis(reply::number(&reply::get(&consumer, "idle")?)?);
        let pending = reply::number(&reply::get(&consumer, "pending")?)?;
        let name = reply::text(name)?.into_bytes();
        if pending == 0 && idle >= shared.pace.forget_after && name != settings.consumer.as_bytes() {
            silent.push(name);
        }
    }
    Ok(silent)
}

fn find(groups: Vec<Value>, name: &str) -> Result<Option<Named>, Malformed> {
    for group in groups {
        let group = reply::named(group)?;
        if reply::text(reply::get(&group, "name")?)? == name {
            return Ok(Some(group));
        }
    }
    Ok(None)
}

const COUNTED_MAX: usize = 10_000;
