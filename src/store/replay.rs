//! Records that were decoded again: what a store is given, what it says of it, and the trying again around one transaction.
//!
//! Rows come to stand as they are decoded now: those that are missing are inserted, of others the decoded columns follow.
//! `faulty`, `received_at` and the key never change. Whatever is interrupted can be done again, as what stands right is left
//! alone.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::{Map, Value};
use teltonika_codecs::Imei;
use tokio::time::sleep;

use super::sqlite::SqliteRewriter;
use super::{DatabaseUrl, ErrorClass, Schema, StoreError, digest};
use crate::store::model::batch::Message;
use crate::store::model::column_set::decoded_columns;
use crate::store::model::row::Key;
use crate::store::model::rows::Rows;
use crate::store::postgres::PostgresRewriter;
use odograph_journal::{JournalId, Position};

/// What entries of one journal hold by today's program.
#[derive(Clone, Debug)]
pub struct ReplayBatch {
    /// The journal.
    pub journal: JournalId,
    /// Every record that is a row.
    pub rows: Rows,
    /// Codec 12 to 15.
    pub messages: Vec<Message>,
    /// Device and digest of every frame of which nothing is refused: none of them belongs into quarantine as a whole.
    whole: Vec<(Imei, [u8; 32])>,
}

impl ReplayBatch {
    /// Nothing yet.
    #[must_use]
    pub fn new(journal: JournalId) -> Self {
        Self { journal, rows: Rows::default(), messages: Vec::new(), whole: Vec::new() }
    }

    /// The frame with this data field is taken whole: all that it holds is here.
    pub fn whole(&mut self, imei: Imei, data: &[u8]) {
        self.whole.push((imei, digest(data)));
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.messages.is_empty() && self.whole.is_empty()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        let Self { journal: _, rows, messages, whole } = self;
        rows.clear();
        messages.clear();
        whole.clear();
    }

    /// Every device in it.
    pub(crate) fn devices(&self) -> HashSet<Imei> {
        let rows = self.rows.as_slice().iter().map(|row| row.imei);
        rows.chain(self.whole.iter().map(|(imei, _)| *imei)).collect()
    }

    /// Device and digest of everything that belongs into quarantine no longer, for the devices that have something there.
    pub(crate) fn resolved(&self, among: &HashSet<i64>, refused: &HashSet<Key>) -> (Vec<i64>, Vec<[u8; 32]>) {
        let has = |imei: Imei| among.contains(&imei.get().cast_signed());
        let rows = self.rows.as_slice().iter().filter(|row| has(row.imei) && !refused.contains(&row.key()));
        let records = rows.map(|row| (row.imei.get().cast_signed(), digest(self.rows.wire(row))));
        let whole = self.whole.iter().filter(|(imei, _)| has(*imei));
        records.chain(whole.map(|(imei, digest)| (imei.get().cast_signed(), *digest))).unzip()
    }
}

/// What became of records that were decoded again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteReport {
    /// Rows that were missing.
    pub inserted: u64,
    /// Rows of which some decoded column changed.
    pub updated: u64,
    /// Rows that stand as they are decoded, and records that came twice.
    pub unchanged: u64,
    /// Rows that the database does not take.
    pub refused: u64,
    /// Quarantined records that have become rows or messages, and are gone from there.
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
    /// By column: rows of which it would change.
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
    /// Whether there are enough rows to look at.
    pub(crate) fn is_plain(&self) -> bool {
        self.examples.len() >= EXAMPLES
    }

    /// So many more rows would change in a column.
    pub(crate) fn count(&mut self, column: &str, rows: i64) {
        if let Ok(rows @ 1..) = u64::try_from(rows) {
            *self.columns.entry(column.to_owned()).or_default() += rows;
        }
    }

    /// A row to look at: as it stands, and as it would.
    pub(crate) fn example(&mut self, key: Key, now: &Map<String, Value>, then: &Map<String, Value>) {
        let pairs = decoded_columns().into_iter().map(|name| {
            let value = |row: &Map<String, Value>| row.get(name).cloned().unwrap_or_default();
            (name.to_owned(), value(now), value(then))
        });
        let columns = pairs.filter(|(_, now, then)| now != then).collect();
        self.examples.push(RowDifference { key, columns });
    }
}

/// Where a lane stood when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanePosition {
    /// The lane, from 0.
    pub number: u16,
    /// How many share the journal.
    pub lanes: u16,
    /// Everything before is committed.
    pub position: Position,
}

/// Writes what was decoded again, beside whoever else writes to the database.
pub struct Rewriter(Kind);

pub(crate) enum Kind {
    Timescale(PostgresRewriter),
    Sqlite(SqliteRewriter),
}

impl Rewriter {
    /// Connects, and looks whether the schema is this program's.
    ///
    /// # Errors
    /// When the database cannot be asked, or lacks migrations.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        const LOOKING: &str = "looking at the schema";
        let mut kind = match url {
            DatabaseUrl::Postgres(_) => Kind::Timescale(PostgresRewriter::new(url)?),
            DatabaseUrl::Sqlite(path) => Kind::Sqlite(SqliteRewriter::open(path).await?),
        };
        let schema = match &mut kind {
            Kind::Timescale(rewriter) => rewriter.schema().await?,
            Kind::Sqlite(rewriter) => rewriter.schema().await?,
        };
        if schema == Schema::Outdated {
            let remedy = "the database lacks migrations: run `odograph migrate` with the same DATABASE_URL";
            return Err(StoreError::new(ErrorClass::Refuses, LOOKING, remedy));
        }
        Ok(Self(kind))
    }

    /// Rows that are well written in one transaction.
    #[must_use]
    pub const fn batch_rows(&self) -> usize {
        match self.0 {
            Kind::Timescale(_) => 5_000,
            // Whoever else writes waits that long.
            Kind::Sqlite(_) => 1_000,
        }
    }

    /// Where the lanes of a journal stand; none where this database never heard of it.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn lanes(&mut self, journal: JournalId) -> Result<Vec<LanePosition>, StoreError> {
        match &mut self.0 {
            Kind::Timescale(rewriter) => rewriter.lanes(journal).await,
            Kind::Sqlite(rewriter) => rewriter.lanes(journal).await,
        }
    }

    /// Makes the tables say what was decoded. Rows are written in the order of their keys in one transaction, or in several
    /// where one is too much for the columnstore. What passes (a deadlock, a connection that ends) is tried again for a while.
    ///
    /// # Errors
    /// Whatever was not committed has not happened. What was stays right.
    pub async fn rewrite(&mut self, again: &mut ReplayBatch) -> Result<RewriteReport, StoreError> {
        let offered = prepare(again);
        let mut sum = RewriteCounts::default();
        let mut failures = 0;
        loop {
            let round = match &mut self.0 {
                Kind::Timescale(rewriter) => rewriter.round(again, &mut sum).await,
                Kind::Sqlite(rewriter) => rewriter.round(again, &mut sum).await,
            };
            match round {
                Ok(RewriteProgress::Whole) => return Ok(sum.rewritten(offered)),
                Ok(RewriteProgress::Part) => failures = 0,
                Err(wrong) if wrong.class == ErrorClass::Refuses || failures >= TRIES => return Err(wrong),
                Err(wrong) => {
                    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(5)).mul_f64(0.5 + fastrand::f64() / 2.0);
                    failures += 1;
                    tracing::warn!(error = %wrong, cause = %wrong.source, retry_in = ?pause, "a batch is tried again");
                    sleep(pause).await;
                }
            }
        }
    }

    /// What [`Self::rewrite`] would do, without a change and without a lock that anybody waits for. What the database would
    /// refuse is not known.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn compare(
        &mut self,
        again: &mut ReplayBatch,
        differences: &mut Differences,
    ) -> Result<RewriteReport, StoreError> {
        let offered = prepare(again);
        let mut sum = RewriteCounts::default();
        match &mut self.0 {
            Kind::Timescale(rewriter) => rewriter.compare(again, differences, &mut sum).await?,
            Kind::Sqlite(rewriter) => rewriter.compare(again, differences, &mut sum).await?,
        }
        Ok(sum.rewritten(offered))
    }
}

/// Sorts, and leaves one row a record: a statement cannot meet a row of its own twice.
pub(crate) fn prepare(again: &mut ReplayBatch) -> u64 {
    let offered = u64::try_from(again.rows.len()).unwrap_or(u64::MAX);
    again.rows.sort();
    again.rows.dedup();
    offered
}

/// How much of a batch a transaction settled.
pub(crate) enum RewriteProgress {
    /// Some of its rows.
    Part,
    /// All that was left.
    Whole,
}

/// What the transactions of a batch did.
#[derive(Debug, Default)]
pub(crate) struct RewriteCounts {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    pub(crate) resolved: u64,
    pub(crate) messages: u64,
    /// Rows that the database does not take, which are not offered again.
    pub(crate) refused: HashSet<Key>,
}

impl RewriteCounts {
    /// Takes in a committed transaction: the rows that differed, those of them that were missing, and how many were written.
    pub(crate) fn rows(&mut self, missing: u64, written: u64) {
        // Somebody else may have inserted one in between.
        let inserted = missing.min(written);
        self.inserted += inserted;
        self.updated += written - inserted;
    }

    pub(crate) fn rewritten(self, offered: u64) -> RewriteReport {
        let Self { inserted, updated, resolved, messages, refused } = self;
        let refused = u64::try_from(refused.len()).unwrap_or(u64::MAX);
        let unchanged = offered.saturating_sub(inserted).saturating_sub(updated).saturating_sub(refused);
        RewriteReport { inserted, updated, unchanged, refused, resolved, messages }
    }
}

/// A row that does not stand as it is decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangedRow {
    pub(crate) key: Key,
    /// It does not stand at all.
    pub(crate) missing: bool,
}

/// Number of those that do not stand at all.
pub(crate) fn missing(differing: &[ChangedRow], refused: &HashSet<Key>) -> u64 {
    let missing = differing.iter().filter(|row| row.missing && !refused.contains(&row.key)).count();
    u64::try_from(missing).unwrap_or(u64::MAX)
}

pub(crate) const EXAMPLES: usize = 5;
/// With the pauses below about half a minute, in which a database restarts.
pub(crate) const TRIES: u32 = 12;
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
