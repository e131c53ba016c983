//! The transaction of a batch: fence, rows by one of three ways, latest positions, quarantine, messages, checkpoint, commit.

use bytes::BytesMut;
use tokio_postgres::types::ToSql;

use super::connection::{Connection, miscounted};
use super::sql::{CHECKPOINT, FENCE, MESSAGES, QUARANTINE, ROWS_CAN_VANISH, StatementKind};
use crate::store::commit::quarantine_input::{QuarantineCap, offered};
use crate::store::commit::write_strategy::WriteStrategy;
use crate::store::model::batch::{Batch, Message, Quarantined};
use crate::store::model::column_set::ColumnSet;
use crate::store::model::fence::{
    BatchSpan, Checkpoint, CommitInDoubt, CommitOutcome, FenceDecision, Lane, StoredCheckpoint, decide,
};
use crate::store::model::row::Key;
use crate::store::model::rows::{RowSlice, Rows};
use crate::store::postgres::{bisect, flag_batch};
use crate::store::{Committed, ErrorClass, StoreError, WritePath};
use odograph_journal::{Mark, Position};

/// A connection within a transaction. Any error ends both.
pub(crate) struct Transaction<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) lane: Lane,
    pub(crate) cap: QuarantineCap,
    /// For encoding; its memory serves the next batch.
    pub(crate) buffer: &'a mut BytesMut,
}

impl Transaction<'_> {
    /// Offers a batch, its rows sorted. From the moment that the commit is sent until it is answered, `doubt` says what is
    /// not known, also when this future is dropped.
    pub(crate) async fn run(
        &mut self,
        strategy: WriteStrategy,
        batch: &Batch,
        step: &BatchSpan,
        doubt: &mut Option<CommitInDoubt>,
    ) -> Result<CommitOutcome, StoreError> {
        if !(strategy == WriteStrategy::Copy && batch.perhaps_stored.is_empty() && batch.latest.is_empty()) {
            self.connection.need_incoming().await?;
        }
        self.connection.batch("beginning a transaction", "BEGIN").await?;
        let stored = self.stored().await?;
        if let FenceDecision::Settled(outcome) = decide(self.lane, step, doubt.as_ref(), stored) {
            self.connection.batch("ending a transaction", "ROLLBACK").await?;
            *doubt = None;
            return Ok(outcome);
        }
        // The one that was in doubt did not happen.
        *doubt = None;
        rows_cannot_vanish(self.connection).await?;
        let mut quarantined = Vec::new();
        let committed = match strategy {
            WriteStrategy::Copy => self.copy(batch).await?,
            WriteStrategy::Conflict => self.insert(batch).await?,
            WriteStrategy::Bisect => bisect::insert(self, batch, &mut quarantined).await?,
        };
        let capped = self.quarantine(&batch.quarantined).await? + self.quarantine(&quarantined).await?;
        let committed = committed.with_capped(capped);
        self.messages(&batch.messages).await?;
        // From here to the end nobody changes the ledger of flags, so what takes long comes before.
        let covered = flag_batch::look(self.connection, batch).await?;
        flag_batch::mend(self.connection, &covered).await?;
        self.newest(strategy, batch, committed.refused(), &covered.newest).await?;
        flag_batch::mend_newest(self.connection, &covered).await?;
        self.checkpoint(&step.to).await?;

        *doubt = Some(CommitInDoubt { to: step.to.mark, committed: committed.clone() });
        self.connection.batch("committing", "COMMIT").await.map_err(|error| {
            let error = error.doubtful();
            if !error.in_doubt() {
                *doubt = None;
            }
            error
        })?;
        *doubt = None;
        Ok(CommitOutcome::Committed(committed))
    }

    async fn stored(&mut self) -> Result<Option<StoredCheckpoint>, StoreError> {
        const FENCING: &str = "reading the checkpoint";
        let (journal, lane) = (self.lane.journal.uuid(), lane_number(self.lane.number));
        let rows = self.connection.query(FENCING, FENCE, &[&journal, &lane]).await?;
        rows.first().map(|row| stored(row, 0)).transpose()
    }

    /// Certainly new rows straight into the table; then those that may stand there, under the key.
    async fn copy(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        let mut inserted = 0;
        if !batch.new.is_empty() {
            let columns = ColumnSet::of(&batch.new);
            inserted = self.copy_into(StatementKind::CopyPositions, columns, &[&batch.new]).await?;
        }
        if !batch.perhaps_stored.is_empty() {
            inserted += self.insert_under_key(&[&batch.perhaps_stored]).await?;
        }
        counted(batch, inserted, WritePath::Copy)
    }

    /// All rows under the key.
    async fn insert(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        let inserted = self.insert_under_key(&[&batch.new, &batch.perhaps_stored]).await?;
        counted(batch, inserted, WritePath::Conflict)
    }

    async fn insert_under_key(&mut self, rows: &[&Rows]) -> Result<u64, StoreError> {
        let columns = rows.iter().copied().map(ColumnSet::of).reduce(ColumnSet::and);
        let Some(columns) = columns else { return Ok(0) };
        self.copy_into(StatementKind::CopyIncoming, columns, rows).await?;
        self.connection.insert("inserting rows", StatementKind::InsertPositions, columns).await
    }

    async fn copy_into(&mut self, kind: StatementKind, columns: ColumnSet, rows: &[&Rows]) -> Result<u64, StoreError> {
        let parts: Vec<_> = rows.iter().map(|rows| rows.whole()).collect();
        self.connection.copy("copying rows", kind, columns, &parts, self.buffer).await
    }

    /// Some rows under the key, for the third strategy.
    pub(crate) async fn insert_part(
        &mut self,
        part: RowSlice<'_>,
        into: [StatementKind; 2],
    ) -> Result<u64, StoreError> {
        let ([copy, insert], columns) = (into, ColumnSet::of(part.rows));
        self.connection.copy("copying rows", copy, columns, &[part], self.buffer).await?;
        self.connection.insert("inserting rows", insert, columns).await
    }

    /// All latest positions but those that flags cover.
    async fn newest(
        &mut self,
        strategy: WriteStrategy,
        batch: &Batch,
        refused: &[Key],
        covered: &[Key],
    ) -> Result<(), StoreError> {
        const WRITING: &str = "writing the latest positions";
        let without;
        let rows = if covered.is_empty() {
            &batch.latest
        } else {
            without = batch.latest.without(covered);
            &without
        };
        if rows.whole().len() == 0 {
            return Ok(());
        }
        if strategy == WriteStrategy::Bisect {
            return bisect::newest(self, &rows.without(refused)).await;
        }
        let columns = ColumnSet::of(rows);
        self.connection.copy(WRITING, StatementKind::CopyNewest, columns, &[rows.whole()], self.buffer).await?;
        self.connection.insert(WRITING, StatementKind::InsertNewest, columns).await?;
        Ok(())
    }

    /// Gives the number of records that were over what is kept.
    pub(crate) async fn quarantine(&mut self, records: &[Quarantined]) -> Result<u64, StoreError> {
        const KEEPING: &str = "writing into quarantine";
        let (offered, over) = offered(records, self.cap);
        if offered.is_empty() {
            return Ok(over);
        }
        let of = || offered.iter().map(|one| one.record);
        let imeis: Vec<_> = of().map(|record| record.imei.get().cast_signed()).collect();
        let reasons: Vec<_> = of().map(|record| record.reason.as_str()).collect();
        let details: Vec<_> = of().map(|record| record.detail.as_str()).collect();
        let received: Vec<_> = of().map(|record| record.received_at_us).collect();
        let frames: Vec<_> = of().map(|record| record.frame.0.cast_signed()).collect();
        let indices: Vec<_> = of().map(|record| record.record_index.map(i16::from)).collect();
        let codecs: Vec<_> = of().map(|record| i16::from(record.codec)).collect();
        let bytes: Vec<_> = of().map(|record| record.bytes.as_slice()).collect();
        let digests: Vec<_> = offered.iter().map(|one| &one.digest[..]).collect();
        let seen: Vec<_> = offered.iter().map(|one| one.seen).collect();
        let (journal, cap) = (self.lane.journal.uuid(), self.cap.map(i64::from));
        let parameters: [&(dyn ToSql + Sync); 12] = [
            &imeis, &reasons, &details, &received, &frames, &indices, &codecs, &bytes, &digests, &seen, &journal, &cap,
        ];
        let rows = self.connection.query(KEEPING, QUARANTINE, &parameters).await?;
        let capped: i64 = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0);
        Ok(over + u64::try_from(capped).unwrap_or(0))
    }

    /// Gives the number of those that were not there.
    pub(crate) async fn messages(&mut self, messages: &[Message]) -> Result<u64, StoreError> {
        if messages.is_empty() {
            return Ok(0);
        }
        let frames: Vec<_> = messages.iter().map(|message| message.frame.0.cast_signed()).collect();
        let imeis: Vec<_> = messages.iter().map(|message| message.imei.get().cast_signed()).collect();
        let received: Vec<_> = messages.iter().map(|message| message.received_at_us).collect();
        let codecs: Vec<_> = messages.iter().map(|message| i16::from(message.codec)).collect();
        let types: Vec<_> = messages.iter().map(|message| i16::from(message.message_type)).collect();
        let bytes: Vec<_> = messages.iter().map(|message| message.bytes.as_slice()).collect();
        let texts: Vec<_> = messages.iter().map(|message| message.text.as_deref()).collect();
        let journal = self.lane.journal.uuid();
        self.connection
            .execute(
                "writing messages",
                MESSAGES,
                &[&frames, &imeis, &received, &codecs, &types, &bytes, &texts, &journal],
            )
            .await
    }

    async fn checkpoint(&mut self, to: &Checkpoint) -> Result<(), StoreError> {
        let (journal, lane) = (self.lane.journal.uuid(), lane_number(self.lane.number));
        let (position, latest) = (position_number(to.mark.position)?, position_number(to.latest)?);
        let parameters: [&(dyn ToSql + Sync); 5] = [&journal, &lane, &position, &to.mark.tag, &latest];
        let written = self.connection.execute("writing the checkpoint", CHECKPOINT, &parameters).await?;
        if written == 1 { Ok(()) } else { Err(miscounted(written, 1)) }
    }
}

/// Whether a row could be dropped without a word.
pub(crate) async fn rows_cannot_vanish(connection: &mut Connection) -> Result<(), StoreError> {
    const LOOKING: &str = "looking for triggers and rules on positions";
    let rows = connection.query(LOOKING, ROWS_CAN_VANISH, &[]).await?;
    if rows.first().and_then(|row| row.try_get(0).ok()) == Some(false) {
        return Ok(());
    }
    let remedy = "positions has a trigger before each inserted row, or a rule, which could drop rows unseen: drop it";
    Err(StoreError::new(ErrorClass::Refuses, LOOKING, remedy))
}

/// What was committed, once the sum is right.
pub(crate) fn counted(batch: &Batch, inserted: u64, path: WritePath) -> Result<Committed, StoreError> {
    let offered = batch.offered();
    let duplicates = offered.checked_sub(inserted).ok_or_else(|| miscounted(inserted, offered))?;
    Ok(Committed::new(inserted, duplicates, Vec::new(), path))
}

/// A checkpoint row: lanes, position, tag, latest position, from that column on.
pub(crate) fn stored(row: &tokio_postgres::Row, column: usize) -> Result<StoredCheckpoint, StoreError> {
    const READING: &str = "reading a checkpoint";
    let failed = |error| StoreError::postgres(READING, error);
    let refused =
        |_| StoreError::new(ErrorClass::Refuses, READING, "a checkpoint is not odograph's: a negative number");
    let lanes: i16 = row.try_get(column).map_err(failed)?;
    let position: i64 = row.try_get(column + 1).map_err(failed)?;
    let tag: i64 = row.try_get(column + 2).map_err(failed)?;
    let latest: i64 = row.try_get(column + 3).map_err(failed)?;
    let mark = Mark { position: Position(u64::try_from(position).map_err(refused)?), tag };
    let latest = Position(u64::try_from(latest).map_err(refused)?);
    Ok(StoredCheckpoint { lanes: u16::try_from(lanes).map_err(refused)?, checkpoint: Checkpoint { mark, latest } })
}

/// Lanes are few: a `smallint` holds their number.
pub(crate) fn lane_number(number: u16) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

pub(crate) fn position_number(position: Position) -> Result<i64, StoreError> {
    i64::try_from(position.0)
        .map_err(|_| StoreError::new(ErrorClass::Refuses, "writing the checkpoint", "a position past 2^63"))
}
