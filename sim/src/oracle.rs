//! What must hold after every step: the promise, the flag rule, and the sums.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use odograph::health::Reason;
use odograph::store::Key;

use crate::database::{SimDatabase, StoredRow, Tables};
use teltonika_codecs::encode::NewRecord;
use uuid::Uuid;

use crate::plan::Plan;
use crate::process::{Process, held_by};
use crate::sent::{Item, Sent, What};

#[derive(Default)]
pub struct Oracle {
    pub sent: Sent,
    /// How often the database went back.
    pub went_back: u64,
    /// A process said that a part of its journal is gone.
    pub gap_seen: bool,
    read_at: Option<u64>,
    /// Acknowledged and not in the database, when the tables were last read.
    missing: Vec<usize>,
    images: BTreeMap<usize, (u64, Vec<bool>)>,
    verified: BTreeSet<Key>,
    seqs: BTreeMap<Uuid, i64>,
    /// Images that were opened.
    pub images_opened: u64,
}

type Checked = Result<(), String>;

impl Oracle {
    /// A frame of these items was acknowledged.
    pub fn acknowledged(&mut self, items: &[usize]) {
        for item in items {
            self.sent.items[*item].acked = true;
        }
        self.read_at = None;
    }

    /// Notes that the database went back. Its rows are checked again.
    pub fn goes_back(&mut self) {
        self.went_back += 1;
        self.verified.clear();
        self.seqs.clear();
    }

    /// After every step.
    pub fn check(&mut self, rng: &mut Rng, plan: &Plan, processes: &mut [Process], database: &SimDatabase) -> Checked {
        if let Some(breach) = database.breach() {
            return Err(format!("a client breaks the contract of the database: {breach}"));
        }
        let changes = database.changes();
        if self.read_at != Some(changes) {
            self.read_at = Some(changes);
            database.read(|tables| self.tables(tables))?;
        }
        for (number, process) in processes.iter_mut().enumerate() {
            self.process(process).map_err(|e| format!("process {number}: {e}"))?;
        }
        let copied = processes.iter().enumerate().any(|(number, process)| process.family != number);
        if database.fenced() > 0 && !copied && self.went_back == 0 {
            return Err("a lane was refused, and it has no other owner".to_owned());
        }
        self.promise(rng, plan, processes)
    }

    /// Checks the tables.
    fn tables(&mut self, tables: &Tables) -> Checked {
        self.missing.clear();
        for (number, item) in self.sent.items.iter_mut().enumerate() {
            // Nothing is taken out of a database but by putting it back.
            let stored = item.was_stored && self.went_back == 0 || item.is_in(tables);
            item.was_stored |= stored;
            if item.acked && !stored && !item.gone {
                self.missing.push(number);
            }
        }
        for (key, stored) in &tables.positions {
            self.row(tables, *key, stored)?;
        }
        for (flag, flagged) in &tables.ledger {
            let before = self.seqs.insert(*flag, flagged.seq);
            if before.is_some_and(|before| before > flagged.seq) {
                return Err(format!("the ledger went back from {before:?} to {} for flag {flag}", flagged.seq));
            }
        }
        Ok(())
    }

    /// Checks that a row is there once, has the values that were sent, and is faulty exactly if a live flag covers it.
    fn row(&mut self, tables: &Tables, key: Key, stored: &StoredRow) -> Checked {
        let is_new = self.verified.insert(key);
        if stored.copies != 1 {
            return Err(format!("{key:?} is there {} times", stored.copies));
        }
        if is_new {
            let item = self.sent.by_key.get(&key).map(|item| &self.sent.items[*item]);
            match item {
                Some(Item { what: What::Record { wire, sent, .. }, .. })
                    if *wire == stored.wire && is_as_sent(sent, stored) => {}
                _ => return Err(format!("{key:?} is not as it was sent: {stored:?}")),
            }
        }
        let covered = tables.live().any(|window| window.covers(key.imei, key.ts_ms));
        // Rows that were there before a flag follow it in a second transaction; rows that come after it are marked at
        // once.
        if covered != stored.faulty && (is_new && self.went_back == 0 || !tables.is_unsettled(key.imei, key.ts_ms)) {
            return Err(format!("{key:?} is faulty: {}, covered: {covered}", stored.faulty));
        }
        Ok(())
    }

    /// Nothing is released that was never committed, and the sums are right.
    fn process(&mut self, process: &mut Process) -> Checked {
        let Some(running) = &mut process.running else { return Ok(()) };
        self.gap_seen |= running.health.holds(Reason::JournalGap);
        let counts = running.tally.read();
        let quarantined: u64 = counts.quarantined.iter().sum();
        if counts.recovered + counts.journaled != counts.committed + counts.duplicate + quarantined + counts.waiting {
            return Err(format!("the counts do not add up: {counts:?}"));
        }
        let Some(journal) = &mut running.journal else { return Ok(()) };
        let released = journal.catalog.status().released;
        if released > journal.released {
            for (position, items) in journal.entries.range(journal.released.0..released.0) {
                if let Some(item) = items.iter().find(|item| !self.sent.items[**item].was_stored) {
                    return Err(format!("released to {released}, but item {item} at {position} was never committed"));
                }
            }
        }
        journal.released = released;
        Ok(())
    }

    /// Every acknowledged record is in the database, or in what a power cut at this moment would leave of a journal.
    fn promise(&mut self, rng: &mut Rng, plan: &Plan, processes: &[Process]) -> Checked {
        if self.missing.is_empty() {
            return Ok(());
        }
        if plan.commit_mode {
            return self.lose(|_| false);
        }
        let mut images = std::mem::take(&mut self.images);
        for (number, process) in processes.iter().enumerate() {
            let changes = process.disk.operations().changes;
            let current =
                images.get(&number).is_some_and(|(at, held)| *at == changes && held.len() == self.sent.items.len());
            if !current {
                // Now the worst that can be left, now something else.
                let seed = if rng.bool() { Some(rng.u64(..)) } else { None };
                let held = held_by(process.disk.after_power_cut(seed), plan, &self.sent)?;
                images.insert(number, (changes, held));
                self.images_opened += 1;
            }
        }
        let checked = self.lose(|item| images.values().any(|(_, held)| held.get(item).is_some_and(|held| *held)));
        self.images = images;
        checked
    }

    /// Checks the missing items. One that no journal holds is gone if the database went back. Otherwise the service
    /// lost it.
    fn lose(&mut self, is_held: impl Fn(usize) -> bool) -> Checked {
        for number in std::mem::take(&mut self.missing) {
            let item = &mut self.sent.items[number];
            if is_held(number) {
                self.missing.push(number);
            } else if item.was_stored && self.went_back > 0 {
                item.gone = true;
            } else {
                return Err(format!("item {number} was acknowledged and would not survive a power cut now"));
            }
        }
        Ok(())
    }

    /// At rest: everything acknowledged is stored, what is gone was reported, and flags and latest positions are right.
    pub fn at_rest(&mut self, plan: &Plan, database: &SimDatabase) -> Checked {
        database.read(|tables| {
            for (number, item) in self.sent.items.iter().enumerate().filter(|(_, item)| item.acked && !item.gone) {
                if !item.is_in(tables) {
                    return Err(format!("item {number} was acknowledged and never came to the database"));
                }
            }
            let mut messages: Vec<_> = tables.messages.values().collect();
            messages.sort_unstable();
            if let Some(pair) = messages.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(format!("a message of {} is there twice, and was sent once", pair[0].0));
            }
            // What is gone may have been sent once more.
            let gone = self.sent.items.iter().any(|item| item.gone && !item.is_in(tables));
            if gone && !self.gap_seen {
                return Err("a part of what was acknowledged is gone, and no process reported it".to_owned());
            }
            if self.gap_seen && self.went_back == 0 {
                return Err("a gap was reported, and the database never went back".to_owned());
            }
            for (key, stored) in &tables.positions {
                let covered = tables.live().any(|window| window.covers(key.imei, key.ts_ms));
                if stored.faulty != covered {
                    return Err(format!("{key:?} is faulty at rest: {}, covered: {covered}", stored.faulty));
                }
            }
            // A row that the database refuses hides an older one of its batch, until the next record.
            if plan.refuses_rows { Ok(()) } else { latest(tables) }
        })
    }
}

fn is_as_sent(sent: &NewRecord, stored: &StoredRow) -> bool {
    let row = &stored.row;
    let degrees = |raw: i32, value: f64| (f64::from(raw) / 1e7 - value).abs() < 1e-9;
    degrees(sent.longitude_raw, row.longitude)
        && degrees(sent.latitude_raw, row.latitude)
        && (sent.altitude_m, sent.angle_deg, sent.speed_kmh) == (row.altitude_m, row.angle_deg, row.speed_kmh)
        && (sent.satellites, sent.priority, sent.event_io_id) == (row.satellites, row.priority, row.event_io_id)
}

/// Each device has the latest of its positions that count.
fn latest(tables: &Tables) -> Checked {
    let mut expected: BTreeMap<u64, (i64, i32)> = BTreeMap::new();
    for (key, stored) in tables.positions.iter().filter(|(_, stored)| stored.row.valid && !stored.faulty) {
        let ahead_us = key.ts_ms * 1000 - stored.row.received_at_us;
        if ahead_us <= 300_000_000 {
            let at = (key.ts_ms, key.fingerprint);
            expected.entry(key.imei).and_modify(|latest| *latest = at.max(*latest)).or_insert(at);
        }
    }
    for (imei, at) in &expected {
        // The same record may have come again at a time at which it was not ahead any more.
        if tables.latest.get(imei).is_none_or(|latest| latest < at) {
            return Err(format!("the latest position of {imei} is {:?} and not {at:?}", tables.latest.get(imei)));
        }
    }
    for (imei, (ts_ms, fingerprint)) in &tables.latest {
        let key = Key { imei: *imei, ts_ms: *ts_ms, fingerprint: *fingerprint };
        if tables.positions.get(&key).is_none_or(|stored| stored.faulty || !stored.row.valid) {
            return Err(format!("the latest position of {imei} is {key:?}, which does not count"));
        }
    }
    Ok(())
}
