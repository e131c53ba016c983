//! The statements of a batch's transaction in PostgreSQL.

use odograph_journal::{Mark, Position};
use tokio_postgres::types::ToSql;

use super::connection::{Connection, key_of};
use super::faulty_session::entry;
use super::flag_sql::{LEDGER_LIVE, LEDGER_LOCK, LEDGER_NEWER, LEDGER_VERSION, SHARE_LEDGER};
use super::migrate;
use super::sql::{
    CHECKPOINT, FENCE, FORGET_LANES, LANES, LOCK_LANE, LOCK_LANES, MAKE_LANES, MESSAGES, QUARANTINE, SERVER_NOW,
    SILENT_LOSS, StatementKind,
};
use crate::lane::Lane;
use crate::store::commit::quarantine_input::{QuarantineCap, QuarantineInput};
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::{CLAIMING_LANE, StoreError};
use crate::store::flags::cache::LedgerEntry;
use crate::store::model::batch::Message;
use crate::store::model::column_set::ColumnSet;
use crate::store::model::fence::{Checkpoint, StoredCheckpoint};
use crate::store::model::migration::Schema;
use crate::store::model::rows::{RowSlice, Rows};
use crate::store::statements::{BatchSession, PartTable};

impl BatchSession for Connection {
    async fn claim_lane(&mut self, lane: Lane) -> Result<(), StoreError> {
        self.execute(CLAIMING_LANE, LOCK_LANE, &[&key_of(lane)]).await.map(drop)
    }

    async fn schema(&mut self) -> Result<Schema, StoreError> {
        migrate::schema(self).await
    }

    async fn server_now_us(&mut self) -> Result<Option<i64>, StoreError> {
        const ASKING: &str = "asking the server for its time";
        let rows = self.query(ASKING, SERVER_NOW, &[]).await?;
        rows.first().map(|row| row.try_get(0)).transpose().map_err(|error| StoreError::postgres(ASKING, error))
    }

    async fn prepare_staging(&mut self) -> Result<(), StoreError> {
        self.need_incoming().await
    }

    async fn lock_checkpoint(&mut self, lane: Lane) -> Result<Option<StoredCheckpoint>, StoreError> {
        let (journal, lane) = (lane.journal.uuid(), lane_number(lane.number));
        let rows = self.query("reading the checkpoint", FENCE, &[&journal, &lane]).await?;
        rows.first().map(|row| stored(row, 0)).transpose()
    }

    async fn silent_loss(&mut self) -> Result<Option<String>, StoreError> {
        const INSPECTING: &str = "inspecting the tables";
        let rows = self.query(INSPECTING, SILENT_LOSS, &[]).await?;
        rows.first().map(|row| row.try_get(0)).transpose().map_err(|error| StoreError::postgres(INSPECTING, error))
    }

    async fn copy_rows(&mut self, rows: &Rows) -> Result<u64, StoreError> {
        self.copy(COPYING, StatementKind::CopyPositions, ColumnSet::of(rows), &[rows.whole()]).await
    }

    async fn insert_rows(&mut self, rows: &[&Rows]) -> Result<u64, StoreError> {
        let columns = rows.iter().copied().map(ColumnSet::of).reduce(ColumnSet::and);
        let Some(columns) = columns else { return Ok(0) };
        let parts: Vec<_> = rows.iter().map(|rows| rows.whole()).collect();
        self.copy(COPYING, StatementKind::CopyIncoming, columns, &parts).await?;
        self.insert(INSERTING, StatementKind::InsertPositions, columns).await
    }

    async fn write_latest(&mut self, rows: &Rows) -> Result<(), StoreError> {
        const WRITING: &str = "writing the latest positions";
        let columns = ColumnSet::of(rows);
        self.copy(WRITING, StatementKind::CopyLatest, columns, &[rows.whole()]).await?;
        self.insert(WRITING, StatementKind::InsertLatest, columns).await.map(drop)
    }

    async fn savepoint(&mut self) -> Result<(), StoreError> {
        self.batch(DIVIDING, "SAVEPOINT part").await
    }

    async fn insert_part(&mut self, part: RowSlice<'_>, table: PartTable) -> Result<u64, StoreError> {
        let [copy, insert] = match table {
            PartTable::Positions => [StatementKind::CopyIncoming, StatementKind::InsertPositions],
            PartTable::Latest => [StatementKind::CopyLatest, StatementKind::InsertLatest],
        };
        self.insert_staged(part, copy, insert).await
    }

    async fn keep_part(&mut self) -> Result<(), StoreError> {
        // The next part must not insert the rows of this one again.
        self.batch(DIVIDING, "TRUNCATE incoming, incoming_latest; RELEASE part").await
    }

    async fn undo_part(&mut self) -> Result<(), StoreError> {
        self.batch(DIVIDING, "ROLLBACK TO part; RELEASE part").await
    }

    async fn write_quarantine(
        &mut self,
        lane: Lane,
        records: &[QuarantineInput<'_>],
        cap: QuarantineCap,
    ) -> Result<u64, StoreError> {
        let of = || records.iter().map(|input| input.record);
        let imeis: Vec<_> = of().map(|record| record.imei.get().cast_signed()).collect();
        let reasons: Vec<_> = of().map(|record| record.reason.as_str()).collect();
        let details: Vec<_> = of().map(|record| record.detail.as_str()).collect();
        let received: Vec<_> = of().map(|record| record.received_at_us).collect();
        let frames: Vec<_> = of().map(|record| record.frame.0.cast_signed()).collect();
        let indices: Vec<_> = of().map(|record| record.record_index.map(i16::from)).collect();
        let codecs: Vec<_> = of().map(|record| i16::from(record.codec)).collect();
        let bytes: Vec<_> = of().map(|record| record.bytes.as_slice()).collect();
        let digests: Vec<_> = records.iter().map(|input| &input.digest[..]).collect();
        let seen: Vec<_> = records.iter().map(|input| input.seen).collect();
        let (journal, cap) = (lane.journal.uuid(), cap.map(i64::from));
        let parameters: [&(dyn ToSql + Sync); 12] = [
            &imeis, &reasons, &details, &received, &frames, &indices, &codecs, &bytes, &digests, &seen, &journal, &cap,
        ];
        let rows = self.query("writing into quarantine", QUARANTINE, &parameters).await?;
        let capped: i64 = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0);
        Ok(u64::try_from(capped).unwrap_or(0))
    }

    async fn write_messages(&mut self, messages: &[Message]) -> Result<u64, StoreError> {
        let frames: Vec<_> = messages.iter().map(|message| message.frame.0.cast_signed()).collect();
        let imeis: Vec<_> = messages.iter().map(|message| message.imei.get().cast_signed()).collect();
        let received: Vec<_> = messages.iter().map(|message| message.received_at_us).collect();
        let codecs: Vec<_> = messages.iter().map(|message| i16::from(message.codec)).collect();
        let types: Vec<_> = messages.iter().map(|message| i16::from(message.message_type)).collect();
        let bytes: Vec<_> = messages.iter().map(|message| message.bytes.as_slice()).collect();
        let texts: Vec<_> = messages.iter().map(|message| message.text.as_deref()).collect();
        let sources: Vec<_> = messages.iter().map(|message| message.source).collect();
        let times: Vec<_> = messages.iter().map(|message| message.device_time_ms).collect();
        let named: Vec<_> =
            messages.iter().map(|message| message.device_imei.map(|imei| imei.get().cast_signed())).collect();
        let parameters: [&(dyn ToSql + Sync); 10] =
            [&frames, &imeis, &received, &codecs, &types, &bytes, &texts, &sources, &times, &named];
        self.execute("writing messages", MESSAGES, &parameters).await
    }

    async fn share_ledger(&mut self) -> Result<(), StoreError> {
        self.query(LOOKING, SHARE_LEDGER, &[&LEDGER_LOCK]).await.map(drop)
    }

    async fn ledger_version(&mut self) -> Result<i64, StoreError> {
        let rows = self.query(LOOKING, LEDGER_VERSION, &[]).await?;
        let version = rows.first().map(|row| row.try_get(0)).transpose();
        Ok(version.map_err(|error| StoreError::postgres(LOOKING, error))?.unwrap_or(0))
    }

    async fn newer_flags(&mut self, version: i64, most: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = match version {
            0 => self.query(LOOKING, LEDGER_LIVE, &[&most]).await?,
            _ => self.query(LOOKING, LEDGER_NEWER, &[&version, &most]).await?,
        };
        rows.iter().map(entry).collect()
    }

    async fn write_checkpoint(&mut self, lane: Lane, checkpoint: &Checkpoint) -> Result<u64, StoreError> {
        let (journal, lane) = (lane.journal.uuid(), lane_number(lane.number));
        let (position, latest) = (position_number(checkpoint.mark.position)?, position_number(checkpoint.latest)?);
        let parameters: [&(dyn ToSql + Sync); 5] = [&journal, &lane, &position, &checkpoint.mark.tag, &latest];
        self.execute("writing the checkpoint", CHECKPOINT, &parameters).await
    }

    async fn lock_lanes(&mut self, lane: Lane) -> Result<(), StoreError> {
        let whole_journal = key_of(Lane { number: u16::MAX, ..lane });
        self.execute(OPENING, LOCK_LANES, &[&whole_journal]).await.map(drop)
    }

    async fn read_lanes(&mut self, lane: Lane) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let rows = self.query(OPENING, LANES, &[&lane.journal.uuid()]).await?;
        rows.iter().map(|row| stored(row, 1)).collect()
    }

    async fn forget_lanes(&mut self, lane: Lane) -> Result<(), StoreError> {
        self.execute("forgetting a journal", FORGET_LANES, &[&lane.journal.uuid()]).await.map(drop)
    }

    async fn make_lanes(&mut self, lane: Lane, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let (position, latest) = (position_number(checkpoint.mark.position)?, position_number(checkpoint.latest)?);
        let (journal, lanes) = (lane.journal.uuid(), lane_number(lane.lanes));
        let parameters: [&(dyn ToSql + Sync); 5] = [&journal, &lanes, &position, &checkpoint.mark.tag, &latest];
        self.execute(OPENING, MAKE_LANES, &parameters).await.map(drop)
    }
}

impl Connection {
    /// Copies a part of the rows into a staging table, and inserts them from there. Returns the number of rows written.
    pub(super) async fn insert_staged(
        &mut self,
        part: RowSlice<'_>,
        copy: StatementKind,
        insert: StatementKind,
    ) -> Result<u64, StoreError> {
        let columns = ColumnSet::of(part.rows);
        self.copy(COPYING, copy, columns, &[part]).await?;
        self.insert(INSERTING, insert, columns).await
    }
}

/// Reads a checkpoint row: lanes, position, tag and latest position, from that column on.
fn stored(row: &tokio_postgres::Row, column: usize) -> Result<StoredCheckpoint, StoreError> {
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
fn lane_number(number: u16) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

fn position_number(position: Position) -> Result<i64, StoreError> {
    i64::try_from(position.0)
        .map_err(|_| StoreError::new(ErrorClass::Refuses, "writing the checkpoint", "a position past 2^63"))
}

const COPYING: &str = "copying rows";
const INSERTING: &str = "inserting rows";
const DIVIDING: &str = "setting a savepoint";
const LOOKING: &str = "looking at the ledger of flags";
const OPENING: &str = "opening a lane";
