//! Entries of the stream, in groups: read, applied by the ledger, acknowledged.
//!
//! An entry is acknowledged only when positions follow it, or when it is in the dead-letter stream. While the database is
//! away entries wait: here, then in the group's list of pending ones, and in the stream. After each start and each broken
//! connection one's own pending entries come first, then those of consumers that fell silent, then new ones.

use std::time::{Duration, SystemTime};

use redis::{Cmd, Pipeline, cmd};
use tokio::time::Instant;

use super::event::{Fault, parse};
use super::link::{Link, LinkError, RedisUrl};
use super::metrics::FlagResult;
use super::reply::{self, Entry, EntryId};
use super::tasks::Shared;
use crate::backoff::Backoff;
use crate::health::Reason;
use crate::store::{Applied, FlagChange, Ledger};

/// Consumes until the stop.
pub(super) async fn run<L: Ledger>(shared: &Shared, url: &RedisUrl, ledger: L) {
    let mut consumer = Consumer { shared, url, ledger, most: shared.pace.group, broken: false };
    let mut backoff = Backoff::default();
    while !shared.stop.is_cancelled() {
        let Err(wrong) = consumer.session(&mut backoff).await else { break };
        if wrong.code() == Some("NOGROUP") {
            // Redis lost its data, or somebody removed the group. What the stream no longer has comes by reconciliation.
            tracing::warn!("the group of flags is gone: making it again");
        } else {
            shared.metrics.redis_up.set(0.0);
            shared.health.raise(Reason::RedisDown);
            tracing::warn!(cause = %wrong, "no flags from Redis, trying again");
        }
        consumer.broken = true;
        backoff.wait(&shared.stop).await;
    }
    consumer.ledger.close().await;
}

struct Consumer<'a, L> {
    shared: &'a Shared,
    url: &'a RedisUrl,
    ledger: L,
    /// Changes that are offered to the ledger together.
    most: usize,
    /// Whether a connection broke since the last reconciliation was asked for.
    broken: bool,
}

impl<L: Ledger> Consumer<'_, L> {
    /// One connection, to its end. Ends well only with the stop.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<(), LinkError> {
        let (shared, stop) = (self.shared, self.shared.stop.clone());
        // The answer to a read comes when its time is over, and a busy server is late.
        let mut link = Link::open(self.url, shared.pace.block.saturating_mul(2) + ANSWER_PATIENCE).await?;
        make_group(&mut link, shared).await?;
        shared.metrics.redis_up.set(1.0);
        shared.health.clear(Reason::RedisDown);
        if std::mem::take(&mut self.broken) {
            shared.reconcile.notify_one();
        }
        self.own_pending(&mut link).await?;
        let mut claim_next = Instant::now();
        while !stop.is_cancelled() {
            if claim_next <= Instant::now() {
                self.claim(&mut link).await?;
                claim_next = Instant::now() + shared.pace.claim_every;
            }
            let read = self.read(">");
            let answer = tokio::select! {
                answer = link.ask(&read) => answer?,
                // What the server sends now is pending, and comes first at the next start.
                () = stop.cancelled() => break,
            };
            let entries = reply::read(answer)?;
            let (begun, gather) = (Instant::now(), entries.len() < shared.pace.group && !entries.is_empty());
            self.take(&mut link, entries).await?;
            backoff.reset();
            if gather {
                tokio::select! {
                    () = tokio::time::sleep_until(begun + shared.pace.gather) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        Ok(())
    }

    /// What this consumer read and did not acknowledge.
    async fn own_pending(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let mut after = EntryId::default();
        while !self.shared.stop.is_cancelled() {
            let entries = reply::read(link.ask(&self.read(&after.to_string())).await?)?;
            let Some(last) = entries.last() else { break };
            after = last.id;
            self.take(link, entries).await?;
        }
        Ok(())
    }

    /// What anybody read long ago and did not acknowledge.
    async fn claim(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let mut next = "0-0".to_owned();
        loop {
            let Shared { settings, pace, .. } = self.shared;
            let mut claim = cmd("XAUTOCLAIM");
            claim.arg(&settings.stream).arg(&settings.group).arg(&settings.consumer).arg(millis(pace.claim_idle));
            claim.arg(&next).arg("COUNT").arg(pace.group);
            let (cursor, entries, gone) = reply::claimed(link.ask(&claim).await?)?;
            self.shared.metrics.event(FlagResult::Gone, count(gone));
            self.take(link, entries).await?;
            next = cursor;
            if next == "0-0" || self.shared.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn read(&self, after: &str) -> Cmd {
        let Shared { settings, pace, .. } = self.shared;
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&settings.group).arg(&settings.consumer).arg("COUNT").arg(pace.group);
        if after == ">" {
            read.arg("BLOCK").arg(millis(pace.block));
        }
        read.arg("STREAMS").arg(&settings.stream).arg(after);
        read
    }

    /// Applies entries and acknowledges them. A stop in between leaves them pending.
    async fn take(&mut self, link: &mut Link, entries: Vec<Entry>) -> Result<(), LinkError> {
        if entries.is_empty() {
            return Ok(());
        }
        let Shared { settings, metrics, .. } = self.shared;
        let (mut changes, mut ids, mut dead, mut gone) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for entry in &entries {
            match entry.fields.as_deref().map(parse) {
                Some(Ok(change)) => {
                    changes.push(change);
                    ids.push(entry.id);
                }
                Some(Err(fault)) => dead.push((entry, fault)),
                None => gone += 1,
            }
        }
        if !self.apply(&changes, &ids).await {
            return Ok(());
        }
        if !dead.is_empty() {
            // Apart from the acknowledgement: a transaction of Redis goes on after a command that failed.
            let mut letters = Pipeline::new();
            for (entry, fault) in &dead {
                tracing::warn!(id = %entry.id, reason = fault.as_str(), "a flag that cannot be read is a dead letter");
                letters.add_command(dead_letter(&settings.dead(), entry, *fault)).ignore();
            }
            link.together(&letters).await?;
        }
        let mut acknowledge = cmd("XACK");
        acknowledge.arg(&settings.stream).arg(&settings.group);
        for entry in &entries {
            acknowledge.arg(entry.id.to_string());
        }
        link.ask(&acknowledge).await?;
        metrics.event(FlagResult::Gone, gone);
        for (_, fault) in dead {
            metrics.fault(fault);
        }
        Ok(())
    }

    /// Offers changes to the ledger for as long as it takes; false if the stop came first. Fewer at a time after a failure:
    /// a database may lack the memory for a large group, and one bad flag shall not hold up all others for long.
    async fn apply(&mut self, changes: &[FlagChange], ids: &[EntryId]) -> bool {
        let (shared, mut backoff, mut done) = (self.shared, Backoff::default(), 0);
        while done < changes.len() {
            let end = changes.len().min(done + self.most);
            let (Some(group), Some(ids)) = (changes.get(done..end), ids.get(done..end)) else { break };
            let applied = tokio::select! {
                applied = self.ledger.apply(group) => applied,
                () = shared.stop.cancelled() => return false,
            };
            match applied {
                Ok(outcomes) => {
                    self.count(&outcomes, ids);
                    done = end;
                    self.most = self.most.saturating_mul(2).min(shared.pace.group);
                    backoff.reset();
                }
                Err(wrong) => {
                    shared.metrics.retries.increment(1);
                    tracing::warn!(class = %wrong.class, cause = %wrong.source, "flags wait for the database: {wrong}");
                    self.most = (group.len() / 2).max(1);
                    backoff.wait(&shared.stop).await;
                }
            }
        }
        true
    }

    fn count(&self, outcomes: &[Applied], ids: &[EntryId]) {
        let Shared { metrics, publish, .. } = self.shared;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut applied = 0;
        for (_, id) in outcomes.iter().zip(ids).filter(|(outcome, _)| **outcome == Applied::Applied) {
            applied += 1;
            metrics.applied_after(now.saturating_sub(Duration::from_millis(id.ms)));
        }
        metrics.event(FlagResult::Applied, applied);
        metrics.event(FlagResult::Stale, count(outcomes.len()).saturating_sub(applied));
        if applied > 0 {
            publish.notify_one();
        }
    }
}

/// From the stream's beginning, so that nothing is left out that came before the group.
async fn make_group(link: &mut Link, shared: &Shared) -> Result<(), LinkError> {
    let settings = &shared.settings;
    let mut create = cmd("XGROUP");
    create.arg("CREATE").arg(&settings.stream).arg(&settings.group).arg("0").arg("MKSTREAM");
    match link.ask(&create).await {
        Err(wrong) if wrong.code() == Some("BUSYGROUP") => {}
        made => {
            made?;
            tracing::info!(stream = settings.stream, group = settings.group, "made the group of flags");
            // It may have been there before, with all that it knew.
            shared.reconcile.notify_one();
        }
    }
    Ok(())
}

fn dead_letter(stream: &str, entry: &Entry, fault: Fault) -> Cmd {
    let mut add = cmd("XADD");
    add.arg(stream).arg("MAXLEN").arg("~").arg(DEAD_MAX).arg("*");
    add.arg("reason").arg(fault.as_str()).arg("id").arg(entry.id.to_string());
    for (name, value) in entry.fields.iter().flatten().take(DEAD_FIELDS) {
        add.arg(cut(name)).arg(cut(value));
    }
    add
}

/// A dead letter is for people to look at, and what cannot be read may be of any size.
fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..DEAD_VALUE).unwrap_or(bytes)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn count(entries: usize) -> u64 {
    u64::try_from(entries).unwrap_or(u64::MAX)
}

const ANSWER_PATIENCE: Duration = Duration::from_secs(3);
/// Dead letters that are kept, about.
const DEAD_MAX: u64 = 100_000;
const DEAD_FIELDS: usize = 16;
const DEAD_VALUE: usize = 4 << 10;
