//! Records that were decoded again: the batch that a store is given, and the report of what changed.
//!
//! A rewrite inserts missing rows and updates the decoded columns of the others. `faulty`, `received_at` and the key
//! never change. An interrupted rewrite can be repeated, because rows that are already right are left alone.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};
use teltonika_codecs::Imei;

use super::batch::Message;
use super::column_set::decoded_columns;
use super::digest::digest;
use super::row::Key;
use super::rows::Rows;
use odograph_journal::{JournalId, Position};

/// Entries of one journal, as this version of the program decodes them.
#[derive(Clone, Debug)]
pub struct ReplayBatch {
    /// The journal.
    pub journal: JournalId,
    /// Every record that is a row.
    pub rows: Rows,
    /// Codec 12 to 15.
    pub messages: Vec<Message>,
    /// Device and digest of every frame of which nothing is refused. As a whole, such a frame is not in quarantine.
    whole_frames: Vec<(Imei, [u8; 32])>,
}

impl ReplayBatch {
    /// An empty batch.
    #[must_use]
    pub fn new(journal: JournalId) -> Self {
        Self { journal, rows: Rows::default(), messages: Vec::new(), whole_frames: Vec::new() }
    }

    /// Notes that the batch holds every record of the frame with this data field.
    pub fn add_whole_frame(&mut self, imei: Imei, data: &[u8]) {
        self.whole_frames.push((imei, digest(data)));
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.messages.is_empty() && self.whole_frames.is_empty()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        let Self { journal: _, rows, messages, whole_frames } = self;
        rows.clear();
        messages.clear();
        whole_frames.clear();
    }

    /// Sorts the rows and leaves one row of each record: a statement cannot write the same row twice. Returns the
    /// number of rows that were offered.
    pub(crate) fn prepare(&mut self) -> u64 {
        let offered = u64::try_from(self.rows.len()).unwrap_or(u64::MAX);
        self.rows.sort();
        self.rows.dedup();
        offered
    }

    /// Every device in it.
    pub(crate) fn devices(&self) -> HashSet<Imei> {
        let rows = self.rows.as_slice().iter().map(|row| row.imei);
        rows.chain(self.whole_frames.iter().map(|(imei, _)| *imei)).collect()
    }

    /// Device and digest of everything that no longer belongs into quarantine, for the devices that have something
    /// there.
    pub(crate) fn resolved(&self, among: &HashSet<i64>, refused: &HashSet<Key>) -> (Vec<i64>, Vec<[u8; 32]>) {
        let has = |imei: Imei| among.contains(&imei.get().cast_signed());
        let rows = self.rows.as_slice().iter().filter(|row| has(row.imei) && !refused.contains(&row.key()));
        let records = rows.map(|row| (row.imei.get().cast_signed(), digest(self.rows.wire(row))));
        let frames = self.whole_frames.iter().filter(|(imei, _)| has(*imei));
        records.chain(frames.map(|(imei, digest)| (imei.get().cast_signed(), *digest))).unzip()
    }
}

/// What a rewrite did with the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteReport {
    /// Rows that were missing.
    pub inserted: u64,
    /// Rows of which some decoded column changed.
    pub updated: u64,
    /// Rows that are stored as they are decoded, and records that came twice.
    pub unchanged: u64,
    /// Rows that the database refuses.
    pub refused: u64,
    /// Quarantined records that have become rows or messages, and were removed from quarantine.
    pub resolved: u64,
    /// Messages that were missing.
    pub messages: u64,
}

impl RewriteReport {
    /// Adds the counts of another batch.
    pub fn add(&mut self, other: Self) {
        let Self { inserted, updated, unchanged, refused, resolved, messages } = other;
        self.inserted += inserted;
        self.updated += updated;
        self.unchanged += unchanged;
        self.refused += refused;
        self.resolved += resolved;
        self.messages += messages;
    }
}

/// How rows would change.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// By column: the number of rows in which it would change.
    pub columns: BTreeMap<String, u64>,
    /// The first few rows that would change.
    pub examples: Vec<RowDifference>,
}

/// How one row would change.
#[derive(Clone, Debug)]
pub struct RowDifference {
    /// The row.
    pub key: Key,
    /// Column, value now, value then.
    pub columns: Vec<(String, Value, Value)>,
}

impl Differences {
    /// How many more example rows to look for.
    pub(crate) fn examples_wanted(&self) -> i64 {
        i64::try_from(EXAMPLES_MAX.saturating_sub(self.examples.len())).unwrap_or(0)
    }

    /// Counts rows in which a column would change.
    pub(crate) fn count(&mut self, column: &str, rows: i64) {
        if let Ok(rows @ 1..) = u64::try_from(rows) {
            *self.columns.entry(column.to_owned()).or_default() += rows;
        }
    }

    /// Adds an example: a row as it is stored, and as it would be.
    pub(crate) fn add_example(&mut self, key: Key, now: &Map<String, Value>, then: &Map<String, Value>) {
        let pairs = decoded_columns().into_iter().map(|name| {
            let value = |row: &Map<String, Value>| row.get(name).cloned().unwrap_or_default();
            (name.to_owned(), value(now), value(then))
        });
        let columns = pairs.filter(|(_, now, then)| now != then).collect();
        self.examples.push(RowDifference { key, columns });
    }
}

/// The checkpoint of a lane at the moment of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanePosition {
    /// The lane, from 0.
    pub number: u16,
    /// How many lanes share the journal.
    pub lanes: u16,
    /// Everything before is committed.
    pub position: Position,
}

/// How much of a batch a transaction finished.
pub(crate) enum RewriteProgress {
    /// Some of its rows.
    Part,
    /// All that was left.
    Whole,
}

/// What the transactions of a batch did so far.
#[derive(Debug, Default)]
pub(crate) struct RewriteCounts {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    pub(crate) resolved: u64,
    pub(crate) messages: u64,
    /// Rows that the database refuses. They are not offered again.
    pub(crate) refused: HashSet<Key>,
}

impl RewriteCounts {
    /// Adds a committed transaction: how many of the changed rows were missing, and how many rows were written.
    pub(crate) fn add(&mut self, missing: u64, written: u64) {
        // Another writer may have inserted one in between.
        let inserted = missing.min(written);
        self.inserted += inserted;
        self.updated += written - inserted;
    }

    pub(crate) fn report(self, offered: u64) -> RewriteReport {
        let Self { inserted, updated, resolved, messages, refused } = self;
        let refused = u64::try_from(refused.len()).unwrap_or(u64::MAX);
        let unchanged = offered.saturating_sub(inserted).saturating_sub(updated).saturating_sub(refused);
        RewriteReport { inserted, updated, unchanged, refused, resolved, messages }
    }
}

/// A row that is not stored as it is decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangedRow {
    pub(crate) key: Key,
    /// It is not stored at all.
    pub(crate) missing: bool,
}

/// The number of rows that are not stored at all.
pub(crate) fn missing(changed: &[ChangedRow], refused: &HashSet<Key>) -> u64 {
    let missing = changed.iter().filter(|row| row.missing && !refused.contains(&row.key)).count();
    u64::try_from(missing).unwrap_or(u64::MAX)
}

/// An operator reads a few; they are not a sample.
const EXAMPLES_MAX: usize = 5;
pub(crate) const COMPARING_ROWS: &str = "comparing rows";
pub(crate) const REWRITING_ROWS: &str = "writing rows that were decoded again";
