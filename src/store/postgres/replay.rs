//! Records that were decoded again, in PostgreSQL. First rows are compared, which locks nothing: only what differs is
//! written, so a replay that changes little costs little, and leaves the columnstore alone.
//!
//! At its end a transaction does what a drain's does: under the shared lock of the ledger it mends its rows where flags cover
//! them, and lets the newest positions follow.

use std::collections::HashSet;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tokio::time::timeout;

use super::connection::Connection;
use super::flag_sql::{PLAN_AS_USUAL, PLAN_BY_KEY};
use super::mark_session::{millis, time};
use super::replay_sql::{
    COUNT_DIFFERING, DIFFERING, EXAMPLES, HAS_QUARANTINE, LANES_STAND, RESOLVE, RESOLVED, STANDS_SOMEWHERE,
};
use super::sql::StatementKind;
use super::store::PostgresConnect;
use crate::store::commit::bisect::{self, PartWriter};
use crate::store::commit::script::{refuse_if_rows_can_vanish, write_quarantine};
use crate::store::commit::write_strategy::WriteStrategy;
use crate::store::flags::batch;
use crate::store::model::batch::{Batch, QuarantineReason, Quarantined};
use crate::store::model::column_set::{ColumnSet, decoded_columns};
use crate::store::model::fence::Lane;
use crate::store::model::row::Key;
use crate::store::model::rows::{RowSlice, Rows};
use crate::store::port::Schema;
use crate::store::postgres::latest::replace;
use crate::store::replay::{
    ChangedRow, Differences, EXAMPLES as MOST_EXAMPLES, LanePosition, ReplayBatch, RewriteCounts, RewriteProgress,
    missing,
};
use crate::store::session::{OpenSession, SessionSlot, bounded};
use crate::store::statements::BatchSession;
use crate::store::{DatabaseUrl, ErrorClass, StoreError, digest};
use odograph_journal::{JournalId, Position};

/// Writes over one connection, which is made when it is needed.
pub(crate) struct PostgresRewriter {
    sessions: SessionSlot<PostgresConnect>,
    /// Most rows that one transaction changes: fewer where the columnstore does not take more at once.
    most: usize,
}

impl PostgresRewriter {
    pub(in crate::store) fn new(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Ok(Self { sessions: SessionSlot::new(PostgresConnect::new(url)?), most: usize::MAX })
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
        let rows = bounded(READING, open.session.query(READING, LANES_STAND, &[&journal.uuid()])).await?;
        self.sessions.put(open);
        let stand = |row: &tokio_postgres::Row| -> Result<LanePosition, tokio_postgres::Error> {
            let (number, lanes): (i16, i16) = (row.try_get(0)?, row.try_get(1)?);
            let position: i64 = row.try_get(2)?;
            let small = |number: i16| u16::try_from(number).unwrap_or(0);
            let position = Position(u64::try_from(position).unwrap_or(0));
            Ok(LanePosition { number: small(number), lanes: small(lanes), position })
        };
        rows.iter().map(|row| stand(row).map_err(|error| StoreError::postgres(READING, error))).collect()
    }

    /// One transaction: all that differs, or a part of it.
    pub(in crate::store) async fn round(
        &mut self,
        again: &ReplayBatch,
        sum: &mut RewriteCounts,
    ) -> Result<RewriteProgress, StoreError> {
        let mut strategy = WriteStrategy::Conflict;
        loop {
            let (most, mut open) = (self.most, self.sessions.take().await?);
            let attempt = timeout(strategy.patience(), write(&mut open, strategy, again, most, sum));
            let wrong = match attempt.await {
                Ok(Ok(round)) => {
                    self.sessions.put(open);
                    return Ok(round);
                }
                Ok(Err(RewriteFailure { wrong, .. })) if strategy.after(wrong.kind()).is_some() => {
                    strategy = WriteStrategy::Bisect;
                    continue;
                }
                Ok(Err(failed)) => failed,
                Err(_) => RewriteFailure { wrong: StoreError::timed_out(WRITING, strategy.patience()), rows: 0 },
            };
            match wrong {
                RewriteFailure { wrong, rows } if wrong.code() == Some(TOO_MUCH_TO_UNPACK) => {
                    if rows <= 1 {
                        return Err(StoreError { class: ErrorClass::Refuses, ..wrong });
                    }
                    self.most = rows / 2;
                }
                RewriteFailure { wrong, .. } => return Err(wrong),
            }
        }
    }

    /// What differs, read only.
    pub(in crate::store) async fn compare(
        &mut self,
        again: &ReplayBatch,
        differences: &mut Differences,
        sum: &mut RewriteCounts,
    ) -> Result<(), StoreError> {
        let mut open = self.sessions.take().await?;
        let connection = &mut open.session;
        connection.need_incoming().await?;
        connection.batch(COMPARING, "BEGIN READ ONLY").await?;
        copy(connection, &again.rows).await?;
        connection.batch(COMPARING, PLAN_BY_KEY).await?;
        let failed = |error| StoreError::postgres(COMPARING, error);
        for (from, to) in days(&again.rows) {
            for row in connection.query(COMPARING, COUNT_DIFFERING.as_str(), &[&from, &to]).await? {
                let count = |column| row.try_get::<_, i64>(column).map_err(failed);
                sum.inserted += u64::try_from(count(0)?).unwrap_or(0);
                sum.updated += u64::try_from(count(1)?).unwrap_or(0);
                for (at, name) in (2..).zip(decoded_columns()) {
                    differences.count(name, count(at)?);
                }
            }
            if differences.is_plain() {
                continue;
            }
            let lacking = i64::try_from(MOST_EXAMPLES - differences.examples.len()).unwrap_or(0);
            let rows = connection.query(COMPARING, EXAMPLES.as_str(), &[&from, &to, &lacking]).await?;
            for row in rows {
                let text = |column| row.try_get::<_, Option<String>>(column).map_err(failed);
                let (now, then) = (object(text(3)?), object(text(4)?));
                differences.example(key(&row).map_err(failed)?, &now, &then);
            }
        }
        let (imeis, digests) = resolved(connection, again, &HashSet::new()).await?;
        if !imeis.is_empty() {
            let digests: Vec<_> = digests.iter().map(|digest| &digest[..]).collect();
            let rows = connection.query(COMPARING, RESOLVED, &[&imeis, &digests]).await?;
            let count: i64 = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0);
            sum.resolved = u64::try_from(count).unwrap_or(0);
        }
        connection.batch(COMPARING, "ROLLBACK").await?;
        self.sessions.put(open);
        Ok(())
    }
}

/// Why a transaction ended early, and how many rows it was to change.
struct RewriteFailure {
    wrong: StoreError,
    rows: usize,
}

impl From<StoreError> for RewriteFailure {
    fn from(wrong: StoreError) -> Self {
        Self { wrong, rows: 0 }
    }
}

async fn write(
    open: &mut OpenSession<Connection>,
    strategy: WriteStrategy,
    again: &ReplayBatch,
    most: usize,
    sum: &mut RewriteCounts,
) -> Result<RewriteProgress, RewriteFailure> {
    let (connection, lane) = (&mut open.session, Lane::only(again.journal));
    connection.need_incoming().await?;
    connection.batch("beginning a transaction", "BEGIN").await?;
    refuse_if_rows_can_vanish(connection).await?;
    let mut differing = differ(connection, &again.rows, &sum.refused).await?;
    let whole = differing.len() <= most;
    differing.truncate(most);
    let keys: HashSet<_> = differing.iter().map(|row| row.key).collect();
    let changing = again.rows.only(&keys);
    let failed = |wrong| RewriteFailure { wrong, rows: keys.len() };
    let (mut refused, mut quarantined) = (HashSet::new(), Vec::new());
    let written = match strategy {
        _ if keys.is_empty() => 0,
        WriteStrategy::Bisect => {
            let refuse = |row: &crate::store::Row, error: &StoreError| {
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
            connection.insert(WRITING, StatementKind::RewritePositions, columns).await.map_err(failed)?
        }
    };
    let (mut resolving, mut messages) = (0, 0);
    if whole {
        let all_refused: HashSet<_> = sum.refused.union(&refused).copied().collect();
        resolving = resolve(connection, again, &all_refused).await?;
        if !again.messages.is_empty() {
            messages = connection.write_messages(lane, &again.messages).await?;
        }
    }
    let lost = not_kept(connection, quarantined).await?;
    write_quarantine(connection, lane, &lost, None).await?;
    let refused_keys: Vec<_> = refused.iter().copied().collect();
    let mut batch = Batch { new: changing.without(&refused_keys), ..Batch::default() };
    if written > 0 {
        // From here to the end nobody changes the ledger of flags.
        batch::share_ledger(&mut open.session, &batch).await?;
        let covered = batch::read_ledger(open, &batch).await?;
        batch::mark_rows(&mut open.session, &covered).await?;
        open.session.batch(WRITING, PLAN_BY_KEY).await?;
        replace(&mut open.session, &batch.new).await?;
    }
    open.session.batch("committing", "COMMIT").await?;
    batch.clear();
    sum.rows(missing(&differing, &refused), written);
    sum.resolved += resolving;
    sum.messages += messages;
    sum.refused.extend(refused);
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

/// The rows that do not stand as they are decoded, in the order of the key.
async fn differ(
    connection: &mut Connection,
    rows: &Rows,
    refused: &HashSet<Key>,
) -> Result<Vec<ChangedRow>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    copy(connection, rows).await?;
    connection.batch(COMPARING, PLAN_BY_KEY).await?;
    let mut found = Vec::new();
    for (from, to) in days(rows) {
        connection
            .each(COMPARING, DIFFERING.as_str(), &[&from, &to], |row| {
                found.push(differing(row)?);
                Ok(())
            })
            .await?;
    }
    // What lies there must not be inserted with what comes.
    connection.batch(COMPARING, "TRUNCATE incoming").await?;
    connection.batch(COMPARING, PLAN_AS_USUAL).await?;
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

fn differing(row: &tokio_postgres::Row) -> Result<ChangedRow, tokio_postgres::Error> {
    Ok(ChangedRow { key: key(row)?, missing: row.try_get(3)? })
}

fn key(row: &tokio_postgres::Row) -> Result<Key, tokio_postgres::Error> {
    let (imei, ts): (i64, SystemTime) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Key { imei: imei.cast_unsigned(), ts_ms: millis(ts), fingerprint: row.try_get(2)? })
}

/// First and last instant of each day in which there are rows: a statement over one day knows the one or two chunks that it
/// touches, however many there are.
fn days(rows: &Rows) -> Vec<(SystemTime, SystemTime)> {
    let mut days: Vec<_> = rows.ordered().map(|row| row.ts_ms.div_euclid(DAY_MS)).collect();
    days.sort_unstable();
    days.dedup();
    days.into_iter().map(|day| (time(day * DAY_MS), time((day + 1) * DAY_MS - 1))).collect()
}

fn object(text: Option<String>) -> Map<String, Value> {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Device and digest of what belongs into quarantine no longer, where there can be any.
async fn resolved(
    connection: &mut Connection,
    again: &ReplayBatch,
    refused: &HashSet<Key>,
) -> Result<(Vec<i64>, Vec<[u8; 32]>), StoreError> {
    let devices: Vec<_> = again.devices().into_iter().map(|imei| imei.get().cast_signed()).collect();
    let mut among = HashSet::new();
    connection
        .each(CLEARING, HAS_QUARANTINE, &[&devices], |row| {
            among.insert(row.try_get(0)?);
            Ok(())
        })
        .await?;
    Ok(if among.is_empty() { (Vec::new(), Vec::new()) } else { again.resolved(&among, refused) })
}

async fn resolve(connection: &mut Connection, again: &ReplayBatch, refused: &HashSet<Key>) -> Result<u64, StoreError> {
    let (imeis, digests) = resolved(connection, again, refused).await?;
    if imeis.is_empty() {
        return Ok(0);
    }
    let digests: Vec<_> = digests.iter().map(|digest| &digest[..]).collect();
    connection.execute(CLEARING, RESOLVE, &[&imeis, &digests]).await
}

/// Those of the refused records that are neither in quarantine nor in the table as they were: nothing else has them.
async fn not_kept(
    connection: &mut Connection,
    refused: Vec<(Key, Quarantined)>,
) -> Result<Vec<Quarantined>, StoreError> {
    let mut lost = Vec::new();
    for (Key { imei, ts_ms, fingerprint }, record) in refused {
        let (imei, ts, digest) = (imei.cast_signed(), time(ts_ms), digest(&record.bytes));
        let rows = connection.query(CLEARING, STANDS_SOMEWHERE, &[&imei, &ts, &fingerprint, &&digest[..]]).await?;
        if rows.first().and_then(|row| row.try_get(0).ok()) != Some(true) {
            lost.push(record);
        }
    }
    Ok(lost)
}

/// `configuration_limit_exceeded`: more rows of the columnstore than one transaction may unpack.
const TOO_MUCH_TO_UNPACK: &str = "53400";
const COMPARING: &str = "comparing rows";
const WRITING: &str = "writing rows that were decoded again";
const CLEARING: &str = "clearing the quarantine";
/// The interval of a chunk, unless the operator chose another one.
const DAY_MS: i64 = 86_400_000;
