//! Measures how far the group is behind, over a connection of its own: the figures also arrive while the database is down.
//! It also removes consumers that are gone for good.
//!
//! Redis reports a wrong lag after a trim, so the lag counts only if an unread entry exists. The age of an entry comes from
//! its id, which is a time.

use std::time::Duration;

use redis::{Pipeline, Value, cmd};

use super::context::{ANSWER_TIMEOUT, FlagContext};
use super::link::{Link, LinkError, RedisUrl};
use super::reply::{self, EntryId, Malformed, NamedValues};
use crate::backoff::Backoff;

/// Measures until the stop.
pub(super) async fn run(context: &FlagContext, url: &RedisUrl) {
    let (mut backoff, mut link, mut checked) = (Backoff::default(), None, false);
    while !context.stop.is_cancelled() {
        let refreshed = tokio::select! {
            refreshed = refresh(context, url, &mut link, &mut checked) => refreshed,
            () = context.stop.cancelled() => break,
        };
        if let Err(error) = refreshed {
            link = None;
            // The consumer creates the group, and logs when Redis is away.
            tracing::debug!(cause = %error, "cannot read the state of the stream");
            backoff.wait(&context.stop).await;
            continue;
        }
        backoff.reset();
        tokio::select! {
            () = tokio::time::sleep(context.pace.watch_every) => {}
            () = context.stop.cancelled() => {}
        }
    }
}

async fn refresh(
    context: &FlagContext,
    url: &RedisUrl,
    link: &mut Option<Link>,
    checked: &mut bool,
) -> Result<(), LinkError> {
    let link = match link.take() {
        Some(open) => link.insert(open),
        None => link.insert(Link::open(url, ANSWER_TIMEOUT).await?),
    };
    if !*checked {
        warn_of_an_empty_stream(link, context).await?;
        *checked = true;
    }
    measure(link, context).await?;
    forget_silent(link, context).await
}

/// Warns of a stream that never had an entry: its name is probably not the one that the writer uses.
async fn warn_of_an_empty_stream(link: &mut Link, context: &FlagContext) -> Result<(), LinkError> {
    let stream = &context.config.stream;
    let state = reply::named(link.query(cmd("XINFO").arg("STREAM").arg(stream)).await?)?;
    if reply::text(reply::get(&state, "last-generated-id")?)? == "0-0" {
        tracing::warn!(stream, "the stream of flags never had an entry: is this the name that Directus' hook uses?");
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; nobody has 2^53 entries")]
async fn measure(link: &mut Link, context: &FlagContext) -> Result<(), LinkError> {
    let (stream, group) = (&context.config.stream, &context.config.group);
    let groups = reply::list(link.query(cmd("XINFO").arg("GROUPS").arg(stream)).await?)?;
    let Some(state) = find(groups, group)? else { return Ok(()) };
    let delivered = reply::text(reply::get(&state, "last-delivered-id")?)?;
    let mut unread = cmd("XRANGE");
    unread.arg(stream).arg(format!("({delivered}")).arg("+").arg("COUNT").arg(1);
    let unread = reply::entries(link.query(&unread).await?)?.first().map(|entry| entry.id);
    let lag = match (unread, reply::get(&state, "lag")) {
        (None, _) => 0,
        // Redis 7 reports it when it can.
        (Some(_), Ok(Value::Int(lag @ 1..))) => u64::try_from(lag).unwrap_or(0),
        (Some(_), _) => count_unread(link, stream, &delivered).await?,
    };
    let (pending, oldest) = pending(link, stream, group).await?;
    context.metrics.lag_entries.set(lag as f64);
    context.metrics.pending.set(pending as f64);
    context.metrics.oldest.set(oldest.into_iter().chain(unread).min().map_or(0.0, |id| id.age().as_secs_f64()));
    Ok(())
}

/// A lower bound: counting stops before it costs much.
async fn count_unread(link: &mut Link, stream: &str, delivered: &str) -> Result<u64, LinkError> {
    let mut range = cmd("XRANGE");
    range.arg(stream).arg(format!("({delivered}")).arg("+").arg("COUNT").arg(COUNTED_MAX);
    let entries = reply::entries(link.query(&range).await?)?;
    Ok(u64::try_from(entries.len()).unwrap_or(u64::MAX))
}

/// The number of pending entries, and the id of the oldest.
async fn pending(link: &mut Link, stream: &str, group: &str) -> Result<(u64, Option<EntryId>), LinkError> {
    let mut summary = reply::list(link.query(cmd("XPENDING").arg(stream).arg(group)).await?)?.into_iter();
    let pending = reply::number(&summary.next().ok_or(Malformed)?)?;
    let oldest = match summary.next() {
        None | Some(Value::Nil) => None,
        Some(id) => EntryId::parse(&reply::text(id)?),
    };
    Ok((pending, oldest))
}

/// Removes consumers that were idle for long and hold nothing. WATCH guards the stream meanwhile: a consumer that comes back
/// at this moment would lose what it has just read.
async fn forget_silent(link: &mut Link, context: &FlagContext) -> Result<(), LinkError> {
    let config = &context.config;
    let silent = silent(link, context).await?;
    if silent.is_empty() {
        return Ok(());
    }
    link.query(cmd("WATCH").arg(&config.stream)).await?;
    let still: Vec<_> = self::silent(link, context).await?.into_iter().filter(|name| silent.contains(name)).collect();
    if still.is_empty() {
        link.query(&cmd("UNWATCH")).await?;
        return Ok(());
    }
    let mut remove = Pipeline::new();
    remove.atomic();
    for name in &still {
        remove.cmd("XGROUP").arg("DELCONSUMER").arg(&config.stream).arg(&config.group).arg(name).ignore();
    }
    // If the stream changed, nothing was done; the next measurement tries again.
    link.query_all(&remove).await?;
    Ok(())
}

async fn silent(link: &mut Link, context: &FlagContext) -> Result<Vec<Vec<u8>>, LinkError> {
    let config = &context.config;
    let answer = link.query(cmd("XINFO").arg("CONSUMERS").arg(&config.stream).arg(&config.group)).await?;
    let mut silent = Vec::new();
    for consumer in reply::list(answer)? {
        let consumer = reply::named(consumer)?;
        let name = reply::get(&consumer, "name")?;
        let idle = Duration::from_millis(reply::number(&reply::get(&consumer, "idle")?)?);
        let pending = reply::number(&reply::get(&consumer, "pending")?)?;
        let name = reply::text(name)?.into_bytes();
        if pending == 0 && idle >= context.pace.forget_after && name != config.consumer.as_bytes() {
            silent.push(name);
        }
    }
    Ok(silent)
}

fn find(groups: Vec<Value>, name: &str) -> Result<Option<NamedValues>, Malformed> {
    for group in groups {
        let group = reply::named(group)?;
        if reply::text(reply::get(&group, "name")?)? == name {
            return Ok(Some(group));
        }
    }
    Ok(None)
}

const COUNTED_MAX: usize = 10_000;
