//! The quarantine in PostgreSQL.

use tokio_postgres::{Client, Row};

use crate::store::postgres::session::{connect, failed};
use crate::store::quarantine::{
    OPENING, PURGING, QuarantineCursor, QuarantineDialect, QuarantineEntry, QuarantineFilter, QuarantineOrder,
    QuarantineRow, QuarantineTotal, READING, STEP, conditions, ordered,
};
use crate::store::{PostgresUrl, StoreError};

pub(crate) struct PostgresQuarantine(Client);

impl PostgresQuarantine {
    pub(crate) async fn open(url: &PostgresUrl) -> Result<Self, StoreError> {
        connect(url, OPENING).await.map(Self)
    }

    pub(crate) async fn totals(&mut self, filter: &QuarantineFilter) -> Result<Vec<QuarantineTotal>, StoreError> {
        let conditions = conditions(filter, None, &DIALECT);
        let query = format!(
            "SELECT reason, count(*), sum(seen)::bigint FROM quarantined_records{conditions} GROUP BY reason ORDER BY 1"
        );
        let rows = self.0.query(&query, &[]).await.map_err(failed(READING))?;
        let total = |row: &Row| -> Result<QuarantineTotal, tokio_postgres::Error> {
            let count = |column| row.try_get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
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
            "SELECT imei, digest, reason, detail, (extract(epoch FROM received_at) * 1000000)::bigint, journal_id, \
             position, record_index, codec, bytes, seen FROM quarantined_records{}{}",
            conditions(filter, behind, &DIALECT),
            ordered(order, most)
        );
        let rows = self.0.query(&query, &[]).await.map_err(failed(READING))?;
        rows.iter().map(|row| raw(row).map_err(failed(READING))?.entry()).collect()
    }

    pub(crate) async fn purge_some(&mut self, filter: &QuarantineFilter) -> Result<u64, StoreError> {
        let delete = format!(
            "DELETE FROM quarantined_records WHERE (imei, digest) IN ( \
                 SELECT imei, digest FROM quarantined_records{}{})",
            conditions(filter, None, &DIALECT),
            ordered(QuarantineOrder::Oldest, STEP)
        );
        self.0.execute(&delete, &[]).await.map_err(failed(PURGING))
    }
}

fn raw(row: &Row) -> Result<QuarantineRow, tokio_postgres::Error> {
    let journal: uuid::Uuid = row.try_get(5)?;
    Ok(QuarantineRow {
        imei: row.try_get(0)?,
        digest: row.try_get(1)?,
        reason: row.try_get(2)?,
        detail: row.try_get(3)?,
        received_at_us: row.try_get(4)?,
        journal: journal.into_bytes(),
        position: row.try_get(6)?,
        record_index: row.try_get(7)?,
        codec: row.try_get(8)?,
        bytes: row.try_get(9)?,
        seen: row.try_get(10)?,
    })
}

const DIALECT: QuarantineDialect = QuarantineDialect {
    digest_hex: "encode(digest, 'hex')",
    time: |us| format!("timestamptz 'epoch' + {us} * interval '1 microsecond'"),
    bytes: |hex| format!("'\\x{hex}'::bytea"),
};
