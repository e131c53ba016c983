//! Writes records that were decoded again to PostgreSQL. It compares rows first, which locks nothing, and writes only
//! those that differ: a replay that changes little costs little, and leaves the columnstore alone.
//!
//! A transaction ends like one of the drain: under the shared lock of the ledger it marks its rows that flags cover,
//! and updates the latest positions.

use std::collections::HashSet;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tokio::time::timeout;

use super::connection::Connection;
use super::faulty_session::{millis, time};
use super::flag_sql::{PLAN_AS_USUAL, PLAN_BY_KEY};
use super::latest::replace;
use super::replay_sql::{
    CHANGED_ROWS, COUNT_CHANGED, EXAMPLES, HAS_QUARANTINE, IS_KEPT, LANE_POSITIONS, RESOLVE, RESOLVED,
};
use super::sql::StatementKind;
use super::store::PostgresConnect;
use super::url::PostgresUrl;
use crate::lane::Lane;
use crate::store::commit::bisect::{self, PartWriter};
use crate::store::commit::quarantine::write_quarantine;
use crate::store::commit::script::refuse_silent_loss;
use crate::store::commit::write_strategy::WriteStrategy;
use crate::store::error::store_error::StoreError;
use crate::store::flags::batch;
use crate::store::model::batch::{Batch, QuarantineReason, Quarantined};
use crate::store::model::column_set::{ColumnSet, decoded_columns};
use crate::store::model::digest::digest;
use crate::store::model::migration::Schema;
use crate::store::model::retention::CLEARING_QUARANTINE;
use crate::store::model::rewrite::{
    COMPARING_ROWS, ChangedRow, Differences, LanePosition, REWRITING_ROWS, ReplayBatch, RewriteCounts, RewriteProgress,
    missing,
};
use crate::store::model::row::{Key, Row};
use crate::store::model::rows::{RowSlice, Rows};
use crate::store::session_slot::{OpenSession, SessionSlot, bounded};
use crate::store::statements::BatchSession;
use odograph_journal::{JournalId, Position};

/// Writes over one connection, which is made when it is needed.
pub(crate) struct PostgresRewriter {
    sessions: SessionSlot<PostgresConnect>,
    /// The largest number of rows that one transaction changes. Lowered if the columnstore takes no more at once.
    rows_max: usize,
}

impl PostgresRewriter {
    pub(in crate::store) fn new(url: &PostgresUrl) -> Result<Self, StoreError> {
        Ok(Self { sessions: SessionSlot::new(PostgresConnect::new(url)?), rows_max: usize::MAX })
    }

    pub(in crate::store) async fn schema(&mut self) -> Result<Schema, StoreError> {
        let mut open = self.sessions.take().await?;
        let schema = bounded("looking at the schema", open.session.schema()).await?;
        self.sessions.put(open);
        Ok(schema)
    }

    pub(in crate::store) async fn lanes(&mut self, journal: JournalId) -> Result<Vec<LanePosition>, StoreError> {
        const READING: &str = "reading the checkpoints";
        let mut open = self.sessions.take().await?;
        let rows = bounded(READING, open.session.query(READING, LANE_POSITIONS, &[&journal.uuid()])).await?;
        self.sessions.put(open);
        let lane = |row: &tokio_postgres::Row| -> Result<LanePosition, tokio_postgres::Error> {
            let (number, lanes): (i16, i16) = (row.try_get(0)?, row.try_get(1)?);
            let position: i64 = row.try_get(2)?;
            let small = |number: i16| u16::try_from(number).unwrap_or(0);
            let position = Position(u64::try_from(position).unwrap_or(0));
            Ok(LanePosition { number: small(number), lanes: small(lanes), position })
        };
        rows.iter().map(|row| lane(row).map_err(|error| StoreError::postgres(READING, error))).collect()
    }

    /// Runs one transaction over all rows that differ, or a part of them.
    pub(in crate::store) async fn round(
        &mut self,
        replay: &ReplayBatch,
        counts: &mut RewriteCounts,
    ) -> Result<RewriteProgress, StoreError> {
        let mut strategy = WriteStrategy::Conflict;
        loop {
            let (rows_max, mut open) = (self.rows_max, self.sessions.take().await?);
            let attempt = timeout(strategy.patience(), write(&mut open, strategy, replay, rows_max, counts));
            let failure = match attempt.await {
                Ok(Ok(progress)) => {
                    self.sessions.put(open);
                    return Ok(progress);
                }
                Ok(Err(RewriteFailure { error, .. })) if strategy.after(error.kind()).is_some() => {
                    strategy = WriteStrategy::Bisect;
                    continue;
                }
                Ok(Err(failure)) => failure,
                Err(_) => StoreError::timed_out(REWRITING_ROWS, strategy.patience()).into(),
            };
            match failure {
                RewriteFailure { error, rows } if error.code() == Some(TOO_MUCH_TO_UNPACK) => {
                    if rows <= 1 {
                        return Err(error.refused());
                    }
                    self.rows_max = rows / 2;
                }
                RewriteFailure { error, .. } => return Err(error),
            }
        }
    }

    /// Counts what differs, read only.
    pub(in crate::store) async fn compare(
        &mut self,
        replay: &ReplayBatch,
        differences: &mut Differences,
        counts: &mut RewriteCounts,
    ) -> Result<(), StoreError> {
        let mut open = self.sessions.take().await?;
        let connection = &mut open.session;
        connection.need_incoming().await?;
        connection.batch(COMPARING_ROWS, "BEGIN READ ONLY").await?;
        copy(connection, &replay.rows).await?;
        connection.batch(COMPARING_ROWS, PLAN_BY_KEY).await?;
        let failed = |error| StoreError::postgres(COMPARING_ROWS, error);
        for (from, to) in days(&replay.rows) {
            for row in connection.query(COMPARING_ROWS, COUNT_CHANGED.as_str(), &[&from, &to]).await? {
                let count = |column| row.try_get::<_, i64>(column).map_err(failed);
                counts.inserted += u64::try_from(count(0)?).unwrap_or(0);
                counts.updated += u64::try_from(count(1)?).unwrap_or(0);
                for (at, name) in (2..).zip(decoded_columns()) {
                    differences.count(name, count(at)?);
                }
            }
            let wanted = differences.examples_wanted();
            if wanted == 0 {
                continue;
            }
            let rows = connection.query(COMPARING_ROWS, EXAMPLES.as_str(), &[&from, &to, &wanted]).await?;
            for row in rows {
                let text = |column| row.try_get::<_, Option<String>>(column).map_err(failed);
                let (now, then) = (object(text(3)?), object(text(4)?));
                differences.add_example(key(&row).map_err(failed)?, &now, &then);
            }
        }
        let (imeis, digests) = resolved(connection, replay, &HashSet::new()).await?;
        if !imeis.is_empty() {
            let digests: Vec<_> = digests.iter().map(|digest| &digest[..]).collect();
            let rows = connection.query(COMPARING_ROWS, RESOLVED, &[&imeis, &digests]).await?;
            let count: i64 = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0);
            counts.resolved = u64::try_from(count).unwrap_or(0);
        }
        connection.batch(COMPARING_ROWS, "ROLLBACK").await?;
        self.sessions.put(open);
        Ok(())
    }
}

/// Why a transaction failed, and how many rows it was to change.
struct RewriteFailure {
    error: StoreError,
    rows: usize,
}

impl From<StoreError> for RewriteFailure {
    fn from(error: StoreError) -> Self {
        Self { error, rows: 0 }
    }
}

async fn write(
    open: &mut OpenSession<Connection>,
    strategy: WriteStrategy,
    replay: &ReplayBatch,
    rows_max: usize,
    counts: &mut RewriteCounts,
) -> Result<RewriteProgress, RewriteFailure> {
    let (connection, lane) = (&mut open.session, Lane::only(replay.journal));
    connection.need_incoming().await?;
    connection.batch("beginning a transaction", "BEGIN").await?;
    refuse_silent_loss(connection).await?;
    let mut changed = changed_rows(connection, &replay.rows, &counts.refused).await?;
    let whole = changed.len() <= rows_max;
    changed.truncate(rows_max);
    let keys: HashSet<_> = changed.iter().map(|row| row.key).collect();
    let changing = replay.rows.only(&keys);
    let failed = |error| RewriteFailure { error, rows: keys.len() };
    let (mut refused, mut quarantined) = (HashSet::new(), Vec::new());
    let written = match strategy {
        _ if keys.is_empty() => 0,
        WriteStrategy::Bisect => {
            let refuse = |row: &Row, error: &StoreError| {
                refused.insert(row.key());
                let (detail, wire) = (error.detail(), changing.wire(row));
                let record = Quarantined::record(row, QuarantineReason::Refused, detail, wire);
                quarantined.push((row.key(), record));
            };
            bisect::insert(&mut RewrittenParts(connection), changing.whole(), refuse).await.map_err(failed)?
        }
        WriteStrategy::Copy | WriteStrategy::Conflict => {
            copy(connection, &changing).await?;
            let columns = ColumnSet::of(&changing);
            connection.insert(REWRITING_ROWS, StatementKind::RewritePositions, columns).await.map_err(failed)?
        }
    };
    let (mut resolving, mut messages) = (0, 0);
    if whole {
        let all_refused: HashSet<_> = counts.refused.union(&refused).copied().collect();
        resolving = resolve(connection, replay, &all_refused).await?;
        if !replay.messages.is_empty() {
            messages = connection.write_messages(&replay.messages).await?;
        }
    }
    let lost = not_stored_anywhere(connection, quarantined).await?;
    write_quarantine(connection, lane, &lost, None).await?;
    let refused_keys: Vec<_> = refused.iter().copied().collect();
    let mut batch = Batch { new: changing.without(&refused_keys), ..Batch::default() };
    if written > 0 {
        // From here to the end no other session changes the ledger of flags.
        batch::share_ledger(&mut open.session, &batch).await?;
        let covered = batch::read_ledger(open, &batch).await?;
        batch::flag_rows(&mut open.session, &covered).await?;
        open.session.batch(REWRITING_ROWS, PLAN_BY_KEY).await?;
        replace(&mut open.session, &batch.new).await?;
    }
    open.session.batch("committing", "COMMIT").await?;
    batch.clear();
    counts.add(missing(&changed, &refused), written);
    counts.resolved += resolving;
    counts.messages += messages;
    counts.refused.extend(refused);
    Ok(if whole { RewriteProgress::Whole } else { RewriteProgress::Part })
}

/// Parts of rows that replace the decoded columns of stored ones.
struct RewrittenParts<'a>(&'a mut Connection);

impl PartWriter for RewrittenParts<'_> {
    async fn savepoint(&mut self) -> Result<(), StoreError> {
        self.0.savepoint().await
    }

    async fn insert(&mut self, part: RowSlice<'_>) -> Result<u64, StoreError> {
        self.0.insert_staged(part, StatementKind::CopyIncoming, StatementKind::RewritePositions).await
    }

    async fn keep(&mut self) -> Result<(), StoreError> {
        self.0.keep_part().await
    }

    async fn undo(&mut self) -> Result<(), StoreError> {
        self.0.undo_part().await
    }
}

/// Finds the rows that are not stored as they are decoded, in the order of the key.
async fn changed_rows(
    connection: &mut Connection,
    rows: &Rows,
    refused: &HashSet<Key>,
) -> Result<Vec<ChangedRow>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    copy(connection, rows).await?;
    connection.batch(COMPARING_ROWS, PLAN_BY_KEY).await?;
    let mut found = Vec::new();
    for (from, to) in days(rows) {
        connection
            .each(COMPARING_ROWS, CHANGED_ROWS.as_str(), &[&from, &to], |row| {
                found.push(changed_row(row)?);
                Ok(())
            })
            .await?;
    }
    // The rows in it must not be inserted together with the next ones.
    connection.batch(COMPARING_ROWS, "TRUNCATE incoming").await?;
    connection.batch(COMPARING_ROWS, PLAN_AS_USUAL).await?;
    found.retain(|row| !refused.contains(&row.key));
    found.sort_unstable_by_key(|row| row.key);
    Ok(found)
}

async fn copy(connection: &mut Connection, rows: &Rows) -> Result<(), StoreError> {
    if !rows.is_empty() {
        let (columns, part) = (ColumnSet::of(rows), rows.whole());
        connection.copy("copying rows", StatementKind::CopyIncoming, columns, &[part]).await?;
    }
    Ok(())
}

fn changed_row(row: &tokio_postgres::Row) -> Result<ChangedRow, tokio_postgres::Error> {
    Ok(ChangedRow { key: key(row)?, missing: row.try_get(3)? })
}

fn key(row: &tokio_postgres::Row) -> Result<Key, tokio_postgres::Error> {
    let (imei, ts): (i64, SystemTime) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Key { imei: imei.cast_unsigned(), ts_ms: millis(ts), fingerprint: row.try_get(2)? })
}

/// The first and last instant of each day with rows. A statement over one day is planned for the one or two chunks that
/// it touches, however many the table has.
fn days(rows: &Rows) -> Vec<(SystemTime, SystemTime)> {
    let mut days: Vec<_> = rows.ordered().map(|row| row.ts_ms.div_euclid(DAY_MS)).collect();
    days.sort_unstable();
    days.dedup();
    days.into_iter().map(|day| (time(day * DAY_MS), time((day + 1) * DAY_MS - 1))).collect()
}

fn object(text: Option<String>) -> Map<String, Value> {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Device and digest of what no longer belongs into quarantine, for devices that have something there.
async fn resolved(
    connection: &mut Connection,
    replay: &ReplayBatch,
    refused: &HashSet<Key>,
) -> Result<(Vec<i64>, Vec<[u8; 32]>), StoreError> {
    let devices: Vec<_> = replay.devices().into_iter().map(|imei| imei.get().cast_signed()).collect();
    let mut among = HashSet::new();
    connection
        .each(CLEARING_QUARANTINE, HAS_QUARANTINE, &[&devices], |row| {
            among.insert(row.try_get(0)?);
            Ok(())
        })
        .await?;
    Ok(if among.is_empty() { (Vec::new(), Vec::new()) } else { replay.resolved(&among, refused) })
}

async fn resolve(connection: &mut Connection, replay: &ReplayBatch, refused: &HashSet<Key>) -> Result<u64, StoreError> {
    let (imeis, digests) = resolved(connection, replay, refused).await?;
    if imeis.is_empty() {
        return Ok(0);
    }
    let digests: Vec<_> = digests.iter().map(|digest| &digest[..]).collect();
    connection.execute(CLEARING_QUARANTINE, RESOLVE, &[&imeis, &digests]).await
}

/// Finds the refused records that are neither in quarantine nor, with their old values, in the table: nothing else has
/// them.
async fn not_stored_anywhere(
    connection: &mut Connection,
    refused: Vec<(Key, Quarantined)>,
) -> Result<Vec<Quarantined>, StoreError> {
    let mut lost = Vec::new();
    for (Key { imei, ts_ms, fingerprint }, record) in refused {
        let (imei, ts, digest) = (imei.cast_signed(), time(ts_ms), digest(&record.bytes));
        let rows = connection.query(CLEARING_QUARANTINE, IS_KEPT, &[&imei, &ts, &fingerprint, &&digest[..]]).await?;
        if rows.first().and_then(|row| row.try_get(0).ok()) != Some(true) {
            lost.push(record);
        }
    }
    Ok(lost)
}

/// `configuration_limit_exceeded`: the transaction would unpack too many rows of the columnstore.
const TOO_MUCH_TO_UNPACK: &str = "53400";
/// The interval of a chunk, unless the operator chose another.
const DAY_MS: i64 = 86_400_000;
