//! Marshals, the stream that carries their changes, and its consumer. Entries come at least once, in any order, or are
//! trimmed: reconciliation finds those. The service's own code reads and applies an entry. The connection to Redis is
//! simulated.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use odograph::flags::parse;
use odograph::store::{FlagChange, FlagLedger, FlagState, Ledger, StoreError, Window};
use teltonika_codecs::Imei;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::database::SimDatabase;

type Fields = Vec<(&'static str, String)>;

/// The stream. Clones are the same one.
#[derive(Clone, Default)]
pub struct Stream {
    entries: Arc<Mutex<Vec<Entry>>>,
    added: Arc<Notify>,
}

struct Entry {
    fields: Fields,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Pending { process: usize, since: Instant },
    Done,
}

impl Stream {
    pub fn add(&self, fields: Fields) {
        self.entries().push(Entry { fields, state: State::New });
        self.added.notify_waiters();
    }

    /// Whether every entry was acknowledged.
    pub fn is_done(&self) -> bool {
        self.entries().iter().all(|entry| entry.state == State::Done)
    }

    /// Removes entries that no consumer has read.
    pub fn trim(&self) {
        self.entries().iter_mut().filter(|entry| entry.state == State::New).for_each(|entry| entry.state = State::Done);
    }

    /// Reads entries for a consumer: those that it read before a restart, those that another one left long ago, new
    /// ones.
    fn read(&self, process: usize, restarted: bool) -> Vec<(usize, Fields)> {
        let now = Instant::now();
        let mut entries = self.entries();
        let mut read = Vec::new();
        for (id, entry) in entries.iter_mut().enumerate() {
            let mine = match entry.state {
                State::New => true,
                State::Pending { process: other, since } => {
                    (restarted && other == process) || now.duration_since(since) > CLAIM_IDLE
                }
                State::Done => false,
            };
            if mine && read.len() < GROUP {
                entry.state = State::Pending { process, since: now };
                read.push((id, entry.fields.clone()));
            }
        }
        read
    }

    fn acknowledge(&self, ids: impl Iterator<Item = usize>) {
        let mut entries = self.entries();
        ids.for_each(|id| entries[id].state = State::Done);
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap()
    }
}

/// Consumes for one process, until it is dropped.
pub async fn consume(process: usize, stream: Stream, mut ledger: FlagLedger<SimDatabase>, deaf: bool) {
    let (mut restarted, mut reconcile_at) = (true, Instant::now());
    loop {
        if Instant::now() >= reconcile_at && !deaf {
            if reconcile(&mut ledger).await.is_err() {
                sleep(PAUSE).await;
                continue;
            }
            reconcile_at = Instant::now() + RECONCILE_EVERY;
        }
        let entries = stream.read(process, std::mem::take(&mut restarted));
        if entries.is_empty() {
            tokio::select! {
                biased;
                () = stream.added.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
            continue;
        }
        let changes: Vec<_> = entries.iter().map(|(_, fields)| parse(fields).unwrap()).collect();
        let (mut done, mut most) = (0, GROUP);
        while done < changes.len() && !deaf {
            let end = changes.len().min(done + most);
            if ledger.apply(&changes[done..end]).await.is_ok() {
                (done, most) = (end, GROUP);
            } else {
                most = ((end - done) / 2).max(1);
                sleep(PAUSE).await;
            }
        }
        stream.acknowledge(entries.into_iter().map(|(id, _)| id));
    }
}

async fn reconcile(ledger: &mut FlagLedger<SimDatabase>) -> Result<(), StoreError> {
    let behind = ledger.behind(GROUP, &[]).await?;
    ledger.apply(&behind).await?;
    while ledger.finish(GROUP).await? == GROUP {}
    Ok(())
}

/// Race marshals, with all flags that they ever had.
#[derive(Default)]
pub struct Marshals {
    pub flags: Vec<FlagChange>,
    seq: i64,
    /// Entries that are not in the stream yet.
    outbox: Vec<Fields>,
}

impl Marshals {
    /// Makes a new flag, or changes one. Returns the flag, its change, and the number of entries about it.
    pub fn declare(
        &mut self,
        rng: &mut Rng,
        most: usize,
        imeis: &[Imei],
        base_ms: u64,
        database: &SimDatabase,
    ) -> (u128, i64, usize) {
        let at = if self.flags.len() < most && rng.bool() { self.flags.len() } else { rng.usize(..most) };
        let old = self.flags.get(at).and_then(|flag| match &flag.state {
            FlagState::Set { window, .. } => Some(*window),
            FlagState::Deleted => flag.old,
        });
        self.seq += rng.i64(1..4);
        let state = if old.is_some() && rng.u8(..) < 60 {
            FlagState::Deleted
        } else {
            let from = i64::try_from(base_ms).unwrap() + rng.i64(-3..16) * 1000;
            let window = Window::new(imeis[rng.usize(..imeis.len())], from, from + rng.i64(0..8) * 1000).unwrap();
            FlagState::Set { window, faulty: rng.u8(..) < 210, reason: None }
        };
        let flag = if let Some(flag) = self.flags.get(at) { flag.flag } else { Uuid::from_u128(rng.u128(..)) };
        let change = FlagChange { flag, seq: self.seq, old, state };
        database.declare(change.clone());
        if at < self.flags.len() {
            self.flags[at] = change.clone();
        } else {
            self.flags.push(change.clone());
        }
        let events = if rng.u8(..) < 60 { 2 } else { 1 };
        self.outbox.extend((0..events).map(|_| fields(&change)));
        (change.flag.as_u128(), change.seq, events)
    }

    /// Moves one entry to the stream, in any order.
    pub fn relay(&mut self, rng: &mut Rng, stream: &Stream) -> bool {
        if self.outbox.is_empty() {
            return false;
        }
        stream.add(self.outbox.swap_remove(rng.usize(..self.outbox.len())));
        true
    }
}

/// As Directus' hook writes it.
fn fields(change: &FlagChange) -> Fields {
    let object = |window: &Window, rest: &str| {
        let time = |ms: i64| {
            let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
            time.format(&Rfc3339).unwrap()
        };
        let (imei, from, to) = (window.imei(), time(window.from_ms()), time(window.to_ms()));
        format!(r#"{{"imei":"{imei}","ts_from":"{from}","ts_to":"{to}"{rest}}}"#)
    };
    let (op, new) = match &change.state {
        FlagState::Deleted => ("delete", String::new()),
        FlagState::Set { window, faulty, .. } => {
            (if change.old.is_some() { "update" } else { "insert" }, object(window, &format!(r#","faulty":{faulty}"#)))
        }
    };
    let old = change.old.map(|old| object(&old, "")).unwrap_or_default();
    let (seq, flag) = (change.seq.to_string(), change.flag.to_string());
    vec![("v", "1".into()), ("seq", seq), ("op", op.into()), ("flag_id", flag), ("old", old), ("new", new)]
}

const GROUP: usize = 4;
const PAUSE: Duration = Duration::from_millis(150);
const LOOK_EVERY: Duration = Duration::from_secs(3);
const CLAIM_IDLE: Duration = Duration::from_secs(8);
const RECONCILE_EVERY: Duration = Duration::from_secs(12);
