//! The transaction of a batch in SQLite.
//!
//! SQLite does not implement the port of statements (`store/statements.rs`) but keeps an order of its own, because most
//! steps of `COMMIT_ORDER` in `commit/script.rs` mean nothing here. `BEGIN IMMEDIATE` takes the one write lock of the
//! file. That lock claims the lane, is the lock of the fence, and is the lock of the ledger. Every row is written under
//! the key: there is no COPY, so there is one strategy and no retry with another one. A failed statement leaves its
//! transaction open, so refused rows are found without a savepoint for each part. A change of flags is one transaction
//! as well: `ledger.rs` records it and makes positions follow.
//!
//! What is left is in the same order: the fence, the guard, the rows, the ledger, the marks, the latest positions and
//! their repair, the checkpoint, the commit. Only quarantine and messages come after the flags: they cannot hold up a
//! lock of the ledger that this transaction has held from its start. `tests/store` requires the same behaviour of both
//! databases.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row as _};

use super::flag_batch;
use super::insert::{Insert, Statements};
use super::operator_connection::failed;
use crate::lane::Lane;
use crate::store::commit::quarantine_input::{HOUR_US, QuarantineCap, QuarantineInput, inputs};
use crate::store::commit::reduce::{message_forms, record_forms};
use crate::store::error::class::ErrorClass;
use crate::store::error::classify::SqlErrorKind;
use crate::store::error::store_error::StoreError;
use crate::store::flags::cache::FlagCache;
use crate::store::model::batch::{Batch, Message, QuarantineReason, Quarantined};
use crate::store::model::column_set::ColumnSet;
use crate::store::model::committed::{Committed, Reduced, WritePath};
use crate::store::model::fence::{
    BatchSpan, Checkpoint, CommitInDoubt, CommitOutcome, FenceDecision, StoredCheckpoint, decide, starting_checkpoint,
};
use crate::store::model::row::Row;
use crate::store::model::rows::Rows;

use odograph_journal::{Mark, Position, unix_now_us};

/// A connection, and what it writes with. Any error ends both.
pub(super) struct Transaction<'a> {
    pub(super) connection: &'a mut SqliteConnection,
    pub(super) lane: Lane,
    pub(super) cap: QuarantineCap,
    pub(super) statements: &'a mut HashMap<ColumnSet, Statements>,
    pub(super) flags: &'a mut FlagCache,
}

impl Transaction<'_> {
    /// Commits a batch with sorted rows. From the moment that the commit is sent until it returns, `doubt` holds the
    /// commit, also when this future is dropped.
    pub(super) async fn run(
        self,
        batch: &Batch,
        span: &BatchSpan,
        doubt: &mut Option<CommitInDoubt>,
    ) -> Result<CommitOutcome, StoreError> {
        let Self { connection, lane, cap, statements, flags } = self;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed(BEGINNING))?;
        let stored = stored(&mut transaction, lane).await?;
        if let FenceDecision::Settled(outcome) = decide(lane, span, doubt.as_ref(), stored) {
            transaction.rollback().await.map_err(failed("ending a transaction"))?;
            *doubt = None;
            return Ok(outcome);
        }
        *doubt = None;
        rows_cannot_vanish(&mut transaction).await?;
        // Released before the checkpoint is written. If a trigger has rolled everything back, the release fails.
        sqlx::query("SAVEPOINT batch").execute(&mut *transaction).await.map_err(failed(BEGINNING))?;

        let (mut inserted, mut keys, mut quarantined) = (0, Vec::new(), Vec::new());
        for rows in [&batch.new, &batch.perhaps_stored] {
            let Some(statements) = statements_of(statements, rows) else { continue };
            let refuse = |row: &Row, error: &StoreError| {
                keys.push(row.key());
                quarantined.push(Quarantined::record(row, QuarantineReason::Refused, error.detail(), rows.wire(row)));
            };
            inserted += statements.positions.run(&mut transaction, rows, refuse).await?;
        }
        flag_batch::learn(&mut transaction, flags).await?;
        flag_batch::flag_rows(&mut transaction, flags, batch).await?;
        if let Some(statements) = statements_of(statements, &batch.latest) {
            let covered = flag_batch::covered(&mut transaction, flags, &batch.latest).await?;
            let rows = batch.latest.without(&keys).without(&covered);
            write_latest(&statements.latest, &mut transaction, &rows).await?;
            flag_batch::repair_covered_latest(&mut transaction, &covered).await?;
        }
        let mut reduced = Reduced::default();
        let mut capped = quarantine(&mut transaction, lane, &batch.quarantined, cap, &mut reduced).await?;
        capped += quarantine(&mut transaction, lane, &quarantined, cap, &mut reduced).await?;
        messages(&mut transaction, &batch.messages, &mut reduced).await?;
        sqlx::query("RELEASE batch").execute(&mut *transaction).await.map_err(failed("ending a batch"))?;
        checkpoint(&mut transaction, lane, &span.to).await?;

        let refused = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        let duplicates = batch.offered().saturating_sub(inserted).saturating_sub(refused);
        let committed =
            Committed::new(inserted, duplicates, keys, WritePath::Conflict).with_capped(capped).with_reduced(reduced);
        *doubt = Some(CommitInDoubt { to: span.to.mark, committed: committed.clone() });
        transaction.commit().await.map_err(failed("committing"))?;
        *doubt = None;
        Ok(CommitOutcome::Committed(committed))
    }
}

fn statements_of<'a>(kept: &'a mut HashMap<ColumnSet, Statements>, rows: &Rows) -> Option<&'a Statements> {
    if rows.is_empty() {
        return None;
    }
    let columns = ColumnSet::of(rows);
    Some(match kept.entry(columns) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Statements::new(columns)),
    })
}

/// Writes latest positions, and leaves out what the database refuses: the record is in `positions` or in quarantine.
async fn write_latest(insert: &Insert, connection: &mut SqliteConnection, rows: &Rows) -> Result<(), StoreError> {
    let refuse = |_: &Row, error: &StoreError| {
        tracing::warn!(detail = error.detail(), "the database refuses a latest position");
    };
    insert.run(connection, rows, refuse).await?;
    Ok(())
}

/// Refuses a trigger that ignores rows: an ignored row would pass for a duplicate.
pub(super) async fn rows_cannot_vanish(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    const LOOKING: &str = "looking for triggers on positions";
    let query = "SELECT EXISTS (SELECT * FROM sqlite_schema \
                 WHERE type = 'trigger' AND tbl_name = 'positions' AND sql LIKE '%IGNORE%')";
    let vanish: bool = sqlx::query_scalar(query).fetch_one(connection).await.map_err(failed(LOOKING))?;
    if vanish {
        let remedy = "positions has a trigger with IGNORE, which could drop rows silently: drop the trigger";
        return Err(StoreError::new(ErrorClass::Refuses, LOOKING, remedy));
    }
    Ok(())
}

async fn stored(connection: &mut SqliteConnection, lane: Lane) -> Result<Option<StoredCheckpoint>, StoreError> {
    let rows = lanes(connection, lane).await?;
    Ok(rows.into_iter().find(|(number, _)| *number == lane.number).map(|(_, stored)| stored))
}

pub(super) async fn lanes(
    connection: &mut SqliteConnection,
    lane: Lane,
) -> Result<Vec<(u16, StoredCheckpoint)>, StoreError> {
    const READING: &str = "reading the checkpoints";
    let query = "SELECT lane, lanes, position, tag, latest_position FROM ingest_checkpoints \
                 WHERE journal_id = ? ORDER BY lane";
    let rows = sqlx::query(query).bind(journal(lane)).fetch_all(connection).await.map_err(failed(READING))?;
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed(READING))
}

fn read(row: &SqliteRow) -> Result<(u16, StoredCheckpoint), sqlx::Error> {
    let invalid = |error: std::num::TryFromIntError| sqlx::Error::Decode(error.into());
    let number = |column| row.try_get::<i64, _>(column).and_then(|number| u16::try_from(number).map_err(invalid));
    let position = |column| {
        row.try_get::<i64, _>(column).and_then(|position| u64::try_from(position).map(Position).map_err(invalid))
    };
    let mark = Mark { position: position(2)?, tag: row.try_get(3)? };
    Ok((number(0)?, StoredCheckpoint { lanes: number(1)?, checkpoint: Checkpoint { mark, latest: position(4)? } }))
}

pub(super) async fn open_lane(connection: &mut SqliteConnection, lane: Lane) -> Result<Checkpoint, StoreError> {
    const OPENING: &str = "opening a lane";
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed(OPENING))?;
    let found: Vec<_> = lanes(&mut transaction, lane).await?.into_iter().map(|(_, stored)| stored).collect();
    let (checkpoint, make) = starting_checkpoint(lane, &found);
    if make {
        forget(&mut transaction, lane).await?;
        for number in 0..lane.lanes {
            let insert = "INSERT INTO ingest_checkpoints \
                          (journal_id, lane, lanes, position, tag, latest_position, updated_at) \
                          VALUES (?, ?, ?, ?, ?, ?, ?)";
            sqlx::query(insert)
                .bind(journal(lane))
                .bind(i64::from(number))
                .bind(i64::from(lane.lanes))
                .bind(checkpoint.mark.position.0.cast_signed())
                .bind(checkpoint.mark.tag)
                .bind(checkpoint.latest.0.cast_signed())
                .bind(unix_now_us())
                .execute(&mut *transaction)
                .await
                .map_err(failed(OPENING))?;
        }
    }
    transaction.commit().await.map_err(failed(OPENING))?;
    Ok(checkpoint)
}

pub(super) async fn forget(connection: &mut SqliteConnection, lane: Lane) -> Result<(), StoreError> {
    let delete = sqlx::query("DELETE FROM ingest_checkpoints WHERE journal_id = ?").bind(journal(lane));
    delete.execute(connection).await.map_err(failed("forgetting a journal"))?;
    Ok(())
}

async fn checkpoint(connection: &mut SqliteConnection, lane: Lane, to: &Checkpoint) -> Result<(), StoreError> {
    let update = "UPDATE ingest_checkpoints SET position = ?, tag = ?, latest_position = ?, updated_at = ? \
                  WHERE journal_id = ? AND lane = ?";
    sqlx::query(update)
        .bind(to.mark.position.0.cast_signed())
        .bind(to.mark.tag)
        .bind(to.latest.0.cast_signed())
        .bind(unix_now_us())
        .bind(journal(lane))
        .bind(i64::from(lane.number))
        .execute(connection)
        .await
        .map_err(failed("writing the checkpoint"))?;
    Ok(())
}

/// Returns the number of records that exceeded the maximum. Known bytes only raise their count.
pub(super) async fn quarantine(
    connection: &mut SqliteConnection,
    lane: Lane,
    records: &[Quarantined],
    cap: QuarantineCap,
    reduced: &mut Reduced,
) -> Result<u64, StoreError> {
    let failed = failed("writing into quarantine");
    let again = "UPDATE quarantined_records SET seen = seen + ? WHERE imei = ? AND digest = ?";
    let count = "SELECT count(*) FROM (SELECT 1 FROM quarantined_records \
                 WHERE imei = ? AND received_at >= ? AND received_at < ? LIMIT ?)";
    let insert = "INSERT INTO quarantined_records \
                  (imei, digest, reason, detail, received_at, journal_id, position, record_index, codec, bytes, seen) \
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let (offered, mut over) = inputs(records, cap);
    let mut rooms: HashMap<(u64, i64), i64> = HashMap::new();
    for one in offered {
        let QuarantineInput { record, digest, seen } = one;
        let (imei, digest) = (record.imei.get().cast_signed(), digest.to_vec());
        let known = sqlx::query(again).bind(seen).bind(imei).bind(&digest).execute(&mut *connection).await;
        if known.map_err(failed)?.rows_affected() > 0 {
            continue;
        }
        if let Some(cap) = cap {
            let (_, hour) = one.hour();
            let room = match rooms.entry(one.hour()) {
                Entry::Occupied(room) => room.into_mut(),
                Entry::Vacant(room) => {
                    let from = hour * HOUR_US;
                    let query = sqlx::query_scalar(count).bind(imei).bind(from).bind(from + HOUR_US).bind(cap);
                    let kept: i64 = query.fetch_one(&mut *connection).await.map_err(failed)?;
                    room.insert(i64::from(cap) - kept)
                }
            };
            if *room <= 0 {
                over += seen.unsigned_abs();
                continue;
            }
            *room -= 1;
        }
        let mut forms = record_forms(record).into_iter().enumerate();
        let written = loop {
            let Some((form, record)) = forms.next() else { break None };
            let inserted = sqlx::query(insert)
                .bind(imei)
                .bind(&digest)
                .bind(record.reason.as_str())
                .bind(&record.detail)
                .bind(record.received_at_us)
                .bind(journal(lane))
                .bind(record.frame.0.cast_signed())
                .bind(record.record_index.map(i64::from))
                .bind(i64::from(record.codec))
                .bind(&record.bytes)
                .bind(seen)
                .execute(&mut *connection)
                .await
                .map_err(failed);
            match inserted {
                Ok(_) => break Some(form),
                // Only this statement is undone.
                Err(error) if error.kind() == SqlErrorKind::Row => {}
                Err(error) => return Err(error),
            }
        };
        reduced.count(written);
    }
    Ok(over)
}

/// Returns the number of messages that were new.
/// Writes messages. One that the database refuses is written without its text, then without its bytes, then left out.
/// Returns the number of new ones.
pub(super) async fn messages(
    connection: &mut SqliteConnection,
    messages: &[Message],
    reduced: &mut Reduced,
) -> Result<u64, StoreError> {
    let mut new = 0;
    for whole in messages {
        match message(connection, whole).await {
            Ok(written) => new += written,
            Err(error) if error.kind() == SqlErrorKind::Row => {
                let mut forms = message_forms(whole).into_iter().enumerate().skip(1);
                let written = loop {
                    let Some((form, smaller)) = forms.next() else { break None };
                    match message(connection, &smaller).await {
                        Ok(written) => {
                            new += written;
                            break Some(form);
                        }
                        Err(error) if error.kind() == SqlErrorKind::Row => {}
                        Err(error) => return Err(error),
                    }
                };
                reduced.count(written);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(new)
}

/// Writes a message. If the database refuses it, only this statement is undone.
async fn message(connection: &mut SqliteConnection, message: &Message) -> Result<u64, StoreError> {
    let insert = "INSERT INTO device_messages \
                      (journal_id, position, imei, received_at, codec, type, bytes, text, device_time, device_imei) \
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (journal_id, position) DO NOTHING";
    let written = sqlx::query(insert)
        .bind(message.source.as_bytes().to_vec())
        .bind(message.frame.0.cast_signed())
        .bind(message.imei.get().cast_signed())
        .bind(message.received_at_us)
        .bind(i64::from(message.codec))
        .bind(i64::from(message.message_type))
        .bind(&message.bytes)
        .bind(&message.text)
        .bind(message.device_time_ms)
        .bind(message.device_imei.map(|imei| imei.get().cast_signed()))
        .execute(&mut *connection)
        .await;
    Ok(written.map_err(failed("writing messages"))?.rows_affected())
}

fn journal(lane: Lane) -> Vec<u8> {
    lane.journal.to_bytes().to_vec()
}

const BEGINNING: &str = "beginning a transaction";
