//! Reads entries of the stream in batches, applies them through the ledger, then acknowledges them.
//!
//! An entry is acknowledged only when positions follow it or the dead-letter stream has it. While the database is down, entries
//! wait: here, then in the group's pending list and in the stream. After each start and each broken connection, this
//! consumer's own pending entries come first, then those of idle consumers, then new ones.

use std::time::Duration;

use redis::{Cmd, Pipeline, cmd};
use tokio::time::Instant;

use super::applier::{self, FlagOutcome, Work};
use super::context::{FlagContext, FlagTask};
use super::event::{Fault, parse, replaceable};
use super::link::{Link, LinkError, RedisUrl};
use super::metrics::FlagResult;
use super::reply::{self, EntryId, StreamEntry};
use crate::backoff::Backoff;
use crate::health::Reason;
use crate::store::{Applied, FlagChange, Ledger};
use odograph_journal::unix_now_us;

/// Consumes until the stop.
pub(super) async fn run<L: Ledger>(context: &FlagContext, url: &RedisUrl, ledger: L) {
    let mut consumer = Consumer { context, url, ledger, most: context.pace.group, broken: false };
    let mut backoff = Backoff::default();
    while !context.stop.is_cancelled() {
        let Err(error) = consumer.session(&mut backoff).await else { break };
        if error.code() == Some("NOGROUP") {
            // Redis lost its data, or the group was removed. Reconciliation brings what the stream no longer has.
            tracing::warn!("the consumer group is gone: creating it again");
        } else {
            context.metrics.redis_up.set(0.0);
            let refusal = error.refusal();
            context.health.set(Reason::RedisRefuses, 0, refusal.is_some());
            context.health.set(Reason::RedisDown, 0, refusal.is_none());
            if let Some(code) = refusal {
                tracing::error!(
                    code, cause = %error, stream = context.config.stream, group = context.config.group,
                    "Redis refuses to give flags: it needs the commands and the keys that docs/flags.md names; trying again"
                );
            } else {
                tracing::warn!(cause = %error, "cannot read flags from Redis, trying again");
            }
        }
        consumer.broken = true;
        backoff.wait(&context.stop).await;
    }
    consumer.ledger.close().await;
}

struct Consumer<'a, L> {
    context: &'a FlagContext,
    url: &'a RedisUrl,
    ledger: L,
    /// Maximum changes per call of the ledger.
    most: usize,
    /// Whether a connection broke since the last reconciliation was requested.
    broken: bool,
}

impl<L: Ledger> Consumer<'_, L> {
    /// Serves one connection until it breaks. Returns `Ok` only at the stop.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<(), LinkError> {
        let (context, stop) = (self.context, self.context.stop.clone());
        // A read is answered when its BLOCK time ends, and a busy server is late.
        let mut link = Link::open(self.url, context.pace.block.saturating_mul(2) + ANSWER_TIMEOUT).await?;
        create_group(&mut link, context).await?;
        context.metrics.redis_up.set(1.0);
        context.health.clear(Reason::RedisDown);
        context.health.clear(Reason::RedisRefuses);
        if std::mem::take(&mut self.broken) {
            context.reconcile.notify_one();
        }
        self.take_own_pending(&mut link).await?;
        let mut claim_next = Instant::now();
        while !stop.is_cancelled() {
            if claim_next <= Instant::now() {
                self.claim(&mut link).await?;
                claim_next = Instant::now() + context.pace.claim_every;
            }
            let read = self.read(">");
            let answer = tokio::select! {
                answer = link.query(&read) => answer?,
                // Entries that the server sends now stay pending and come first at the next start.
                () = stop.cancelled() => break,
            };
            let entries = reply::read(answer)?;
            let (begun, gather) = (Instant::now(), entries.len() < context.pace.group && !entries.is_empty());
            self.take(&mut link, entries).await?;
            backoff.reset();
            if gather {
                tokio::select! {
                    () = tokio::time::sleep_until(begun + context.pace.gather) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        Ok(())
    }

    /// Takes the entries that this consumer read and did not acknowledge.
    async fn take_own_pending(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let mut after = EntryId::default();
        while !self.context.stop.is_cancelled() {
            let entries = reply::read(link.query(&self.read(&after.to_string())).await?)?;
            let Some(last) = entries.last() else { break };
            after = last.id;
            self.take(link, entries).await?;
        }
        Ok(())
    }

    /// Claims entries that any consumer read long ago and did not acknowledge.
    async fn claim(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let mut next = "0-0".to_owned();
        loop {
            let FlagContext { config, pace, .. } = self.context;
            let mut claim = cmd("XAUTOCLAIM");
            claim.arg(&config.stream).arg(&config.group).arg(&config.consumer).arg(millis(pace.claim_idle));
            claim.arg(&next).arg("COUNT").arg(pace.group);
            let (cursor, entries, gone) = reply::claimed(link.query(&claim).await?)?;
            self.context.metrics.event(FlagResult::Gone, count(gone));
            self.take(link, entries).await?;
            next = cursor;
            if next == "0-0" || self.context.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn read(&self, after: &str) -> Cmd {
        let FlagContext { config, pace, .. } = self.context;
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&config.group).arg(&config.consumer).arg("COUNT").arg(pace.group);
        if after == ">" {
            read.arg("BLOCK").arg(millis(pace.block));
        }
        read.arg("STREAMS").arg(&config.stream).arg(after);
        read
    }

    /// Applies entries and acknowledges them. A stop in between leaves them pending.
    async fn take(&mut self, link: &mut Link, entries: Vec<StreamEntry>) -> Result<(), LinkError> {
        if entries.is_empty() {
            return Ok(());
        }
        let FlagContext { config, metrics, .. } = self.context;
        let (mut changes, mut ids, mut dead, mut gone) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let now_us = unix_now_us();
        for entry in &entries {
            let parsed =
                entry.fields.as_deref().map(|fields| parse(fields).and_then(|change| replaceable(change, now_us)));
            match parsed {
                Some(Ok(change)) => {
                    changes.push(change);
                    ids.push(entry.id);
                }
                Some(Err(fault)) => dead.push((entry, fault)),
                None => gone += 1,
            }
        }
        let Some(refused) = self.apply(&changes, &ids).await else { return Ok(()) };
        dead.extend(entries.iter().filter(|entry| refused.contains(&entry.id)).map(|entry| (entry, Fault::Refused)));
        if !dead.is_empty() {
            // Not in one transaction with the acknowledgement: Redis continues a transaction after a failed command.
            let mut letters = Pipeline::new();
            for (entry, fault) in &dead {
                tracing::warn!(id = %entry.id, reason = fault.as_str(), "cannot take a flag: moved to the dead-letter stream");
                letters.add_command(dead_letter(&config.dead(), entry, *fault)).ignore();
            }
            link.query_all(&letters).await?;
        }
        let mut acknowledge = cmd("XACK");
        acknowledge.arg(&config.stream).arg(&config.group);
        for entry in &entries {
            acknowledge.arg(entry.id.to_string());
        }
        link.query(&acknowledge).await?;
        metrics.event(FlagResult::Gone, gone);
        for (_, fault) in dead {
            metrics.fault(fault);
        }
        Ok(())
    }

    /// Applies changes, however long it takes. Returns the entries that the database refuses, or `None` if the stop came
    /// first. After a failure the batch is halved: a database may lack the memory for a large one.
    async fn apply(&mut self, changes: &[FlagChange], ids: &[EntryId]) -> Option<Vec<EntryId>> {
        let (context, mut backoff, mut done, mut refused) = (self.context, Backoff::default(), 0, Vec::new());
        while done < changes.len() {
            let end = changes.len().min(done + self.most);
            let (Some(group), Some(ids)) = (changes.get(done..end), ids.get(done..end)) else { break };
            let applied = tokio::select! {
                applied = applier::apply(context, &mut self.ledger, Work::Changes(group)) => applied,
                () = context.stop.cancelled() => return None,
            };
            context.note_refusal(FlagTask::Consumer, applied.as_ref().err());
            match applied {
                Ok(outcomes) => {
                    self.count(&outcomes, ids);
                    let of_refused = outcomes.iter().zip(ids).filter(|(outcome, _)| **outcome == FlagOutcome::Refused);
                    refused.extend(of_refused.map(|(_, id)| *id));
                    done = end;
                    self.most = self.most.saturating_mul(2).min(context.pace.group);
                    backoff.reset();
                }
                Err(error) => {
                    context.metrics.retries.increment(1);
                    tracing::warn!(class = %error.class, cause = %error.source, "flags wait for the database: {error}");
                    self.most = (group.len() / 2).max(1);
                    backoff.wait(&context.stop).await;
                }
            }
        }
        Some(refused)
    }

    fn count(&self, outcomes: &[FlagOutcome], ids: &[EntryId]) {
        let FlagContext { metrics, publish, .. } = self.context;
        let of = |wanted: FlagOutcome| outcomes.iter().filter(move |outcome| **outcome == wanted).count();
        let applied = FlagOutcome::Taken(Applied::Applied);
        for (_, id) in outcomes.iter().zip(ids).filter(|(outcome, _)| **outcome == applied) {
            metrics.applied_after(id.age());
        }
        metrics.event(FlagResult::Applied, count(of(applied)));
        metrics.event(FlagResult::Stale, count(of(FlagOutcome::Taken(Applied::Stale))));
        metrics.event(FlagResult::SetAside, count(of(FlagOutcome::SetAside)));
        if of(applied) > 0 {
            publish.notify_one();
        }
    }
}

/// Creates the group at the beginning of the stream, so that it includes entries older than itself.
async fn create_group(link: &mut Link, context: &FlagContext) -> Result<(), LinkError> {
    let config = &context.config;
    let mut create = cmd("XGROUP");
    create.arg("CREATE").arg(&config.stream).arg(&config.group).arg("0").arg("MKSTREAM");
    match link.query(&create).await {
        Err(error) if error.code() == Some("BUSYGROUP") => {}
        made => {
            made?;
            tracing::info!(stream = config.stream, group = config.group, "created the consumer group");
            // The group may have existed before, and its state is lost.
            context.reconcile.notify_one();
        }
    }
    Ok(())
}

fn dead_letter(stream: &str, entry: &StreamEntry, fault: Fault) -> Cmd {
    let mut add = cmd("XADD");
    add.arg(stream).arg("MAXLEN").arg("~").arg(DEAD_MAX).arg("*");
    add.arg("reason").arg(fault.as_str()).arg("id").arg(entry.id.to_string());
    for (name, value) in entry.fields.iter().flatten().take(DEAD_FIELDS) {
        add.arg(cut(name)).arg(cut(value));
    }
    add
}

/// Shortens a value: a dead letter is for people, and an unreadable entry may have any size.
fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..DEAD_VALUE).unwrap_or(bytes)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn count(entries: usize) -> u64 {
    u64::try_from(entries).unwrap_or(u64::MAX)
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Dead letters that the stream keeps, approximately.
const DEAD_MAX: u64 = 100_000;
const DEAD_FIELDS: usize = 16;
const DEAD_VALUE: usize = 4 << 10;
