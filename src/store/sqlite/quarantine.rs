//! The quarantine in SQLite.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use crate::store::StoreError;
use crate::store::quarantine::{
    OPENING, PURGING, QuarantineCursor, QuarantineDialect, QuarantineEntry, QuarantineFilter, QuarantineOrder,
    QuarantineRow, QuarantineTotal, READING, STEP, conditions, ordered,
};

pub(crate) struct SqliteQuarantine(SqliteConnection);

impl SqliteQuarantine {
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).disable_statement_logging();
        options.connect().await.map(Self).map_err(failed(OPENING))
    }

    pub(crate) async fn totals(&mut self, filter: &QuarantineFilter) -> Result<Vec<QuarantineTotal>, StoreError> {
        let conditions = conditions(filter, None, &DIALECT);
        let query = format!(
            "SELECT reason, count(*), sum(seen) FROM quarantined_records{conditions} GROUP BY reason ORDER BY 1"
        );
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut self.0).await.map_err(failed(READING))?;
        let total = |row: &SqliteRow| -> Result<QuarantineTotal, sqlx::Error> {
            let count = |column| row.try_get::<i64, usize>(column).map(|count| u64::try_from(count).unwrap_or(0));
            Ok(QuarantineTotal { reason: row.try_get(0)?, records: count(1)?, seen: count(2)? })
        };
        rows.iter().map(total).collect::<Result<_, _>>().map_err(failed(READING))
    }

    pub(crate) async fn page(
        &mut self,
        filter: &QuarantineFilter,
        order: QuarantineOrder,
        behind: Option<QuarantineCursor>,
        most: u32,
    ) -> Result<Vec<QuarantineEntry>, StoreError> {
        let query = format!(
            "SELECT imei, digest, reason, detail, received_at, journal_id, position, record_index, codec, bytes, seen \
             FROM quarantined_records{}{}",
            conditions(filter, behind, &DIALECT),
            ordered(order, most)
        );
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut self.0).await.map_err(failed(READING))?;
        rows.iter().map(|row| raw(row).map_err(failed(READING))?.entry()).collect()
    }

    pub(crate) async fn purge_some(&mut self, filter: &QuarantineFilter) -> Result<u64, StoreError> {
        let delete = format!(
            "DELETE FROM quarantined_records WHERE rowid IN (SELECT rowid FROM quarantined_records{}{})",
            conditions(filter, None, &DIALECT),
            ordered(QuarantineOrder::Oldest, STEP)
        );
        let done = sqlx::query(AssertSqlSafe(delete)).execute(&mut self.0).await.map_err(failed(PURGING))?;
        Ok(done.rows_affected())
    }
}

fn raw(row: &SqliteRow) -> Result<QuarantineRow, sqlx::Error> {
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

fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError::sqlx(doing, error)
}

const DIALECT: QuarantineDialect =
    QuarantineDialect { digest_hex: "lower(hex(digest))", time: |us| us.to_string(), bytes: |hex| format!("x'{hex}'") };
/// The writer holds the file for a second at most.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
