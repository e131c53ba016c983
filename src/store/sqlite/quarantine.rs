//! The quarantine in SQLite.

use std::path::Path;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::operator_connection::{connect, failed};
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::model::quarantine::{
    OPENING_QUARANTINE, PURGING_QUARANTINE, QUARANTINE_PURGE_ROWS, QuarantineCursor, QuarantineEntry, QuarantineFilter,
    QuarantineRow, QuarantineTotal, READING_QUARANTINE,
};
use crate::store::model::quarantine_query::{QuarantineDialect, QuarantineOrder, conditions, ordered};

pub(crate) struct SqliteQuarantine(SqliteConnection);

impl SqliteQuarantine {
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        connect(path, OPENING_QUARANTINE).await.map(Self)
    }

    pub(crate) async fn totals(&mut self, filter: &QuarantineFilter) -> Result<Vec<QuarantineTotal>, StoreError> {
        let conditions = conditions(filter, None, &DIALECT);
        let query = format!(
            "SELECT reason, count(*), sum(seen) FROM quarantined_records{conditions} GROUP BY reason ORDER BY 1"
        );
        let rows =
            sqlx::query(AssertSqlSafe(query)).fetch_all(&mut self.0).await.map_err(failed(READING_QUARANTINE))?;
        let total = |row: &SqliteRow| -> Result<QuarantineTotal, sqlx::Error> {
            let count = |column| row.try_get::<i64, usize>(column).map(|count| u64::try_from(count).unwrap_or(0));
            Ok(QuarantineTotal { reason: row.try_get(0)?, records: count(1)?, seen: count(2)? })
        };
        rows.iter().map(total).collect::<Result<_, _>>().map_err(failed(READING_QUARANTINE))
    }

    pub(crate) async fn page(
        &mut self,
        filter: &QuarantineFilter,
        order: QuarantineOrder,
        after: Option<QuarantineCursor>,
        most: u32,
    ) -> Result<Vec<QuarantineEntry>, StoreError> {
        let query = format!(
            "SELECT imei, digest, reason, detail, received_at, journal_id, position, record_index, codec, bytes, seen \
             FROM quarantined_records{}{}",
            conditions(filter, after, &DIALECT),
            ordered(order, most)
        );
        let rows =
            sqlx::query(AssertSqlSafe(query)).fetch_all(&mut self.0).await.map_err(failed(READING_QUARANTINE))?;
        rows.iter().map(entry).collect()
    }

    pub(crate) async fn purge_some(&mut self, filter: &QuarantineFilter) -> Result<u64, StoreError> {
        let delete = format!(
            "DELETE FROM quarantined_records WHERE rowid IN (SELECT rowid FROM quarantined_records{}{})",
            conditions(filter, None, &DIALECT),
            ordered(QuarantineOrder::OldestFirst, QUARANTINE_PURGE_ROWS)
        );
        let done = sqlx::query(AssertSqlSafe(delete)).execute(&mut self.0).await.map_err(failed(PURGING_QUARANTINE))?;
        Ok(done.rows_affected())
    }
}

fn entry(row: &SqliteRow) -> Result<QuarantineEntry, StoreError> {
    let row = columns(row).map_err(failed(READING_QUARANTINE))?;
    row.try_into().map_err(|error| StoreError::new(ErrorClass::Refuses, READING_QUARANTINE, error))
}

fn columns(row: &SqliteRow) -> Result<QuarantineRow, sqlx::Error> {
    let journal: Vec<u8> = row.try_get(5)?;
    Ok(QuarantineRow {
        imei: row.try_get(0)?,
        digest: row.try_get(1)?,
        reason: row.try_get(2)?,
        detail: row.try_get(3)?,
        received_at_us: row.try_get(4)?,
        journal: journal.try_into().unwrap_or_default(),
        position: row.try_get(6)?,
        record_index: row.try_get(7)?,
        codec: row.try_get(8)?,
        bytes: row.try_get(9)?,
        seen: row.try_get(10)?,
    })
}

const DIALECT: QuarantineDialect =
    QuarantineDialect { digest_hex: "lower(hex(digest))", time: |us| us.to_string(), bytes: |hex| format!("x'{hex}'") };
