//! Rows and quarantined records as an audit reads them from either database.

use std::collections::HashSet;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};
use teltonika_codecs::{AvlData, Imei};
use tokio_postgres::types::ToSql;

use super::compare::Stored;
use super::expected::{COLUMNS, Kind, Values};
use super::{AuditError, Range, key};
use crate::database::Database;

type Rows<'a> = Pin<Box<dyn Stream<Item = Result<Stored, AuditError>> + Send + 'a>>;

impl Database {
    /// The rows of a fleet in the order of the key, as they are fetched.
    pub(super) async fn positions(&mut self, range: Range) -> Result<Rows<'_>, AuditError> {
        let Range { first, last, since_ms } = range;
        let order = "ORDER BY imei, ts, fingerprint";
        Ok(match self {
            Self::Postgres(client) => {
                let query = format!(
                    "SELECT {} FROM positions WHERE imei BETWEEN $1 AND $2 \
                     AND ts >= to_timestamp($3::bigint::double precision / 1000) {order}",
                    columns(&POSTGRES)
                );
                let parameters: [&(dyn ToSql + Sync); 3] = [&first, &last, &since_ms];
                let rows = client.query_raw(&query, parameters).await?;
                Box::pin(rows.map(|row| of_postgres(&row?)))
            }
            Self::Sqlite(connection) => {
                let query = format!(
                    "SELECT {} FROM positions WHERE imei BETWEEN ? AND ? AND ts >= ? {order}",
                    columns(&SQLITE)
                );
                let rows = sqlx::query(AssertSqlSafe(query)).bind(first).bind(last).bind(since_ms).fetch(connection);
                Box::pin(rows.map(|row| of_sqlite(&row?)))
            }
        })
    }

    /// The bytes of a tracker's records in quarantine, those of whole frames among them.
    pub(super) async fn quarantined(&mut self, imei: Imei) -> Result<HashSet<Vec<u8>>, AuditError> {
        let imei = key(imei.get());
        let (select, mut found) = ("SELECT record_index IS NULL, bytes FROM quarantined_records", HashSet::new());
        match self {
            Self::Postgres(client) => {
                for row in client.query(&format!("{select} WHERE imei = $1"), &[&imei]).await? {
                    keep(row.try_get(0)?, row.try_get(1)?, &mut found);
                }
            }
            Self::Sqlite(connection) => {
                let query = sqlx::query(AssertSqlSafe(format!("{select} WHERE imei = ?"))).bind(imei);
                let mut rows = query.fetch(connection);
                while let Some(row) = rows.try_next().await? {
                    keep(row.try_get(0)?, row.try_get(1)?, &mut found);
                }
            }
        }
        Ok(found)
    }
}

fn keep(whole_frame: bool, bytes: Vec<u8>, found: &mut HashSet<Vec<u8>>) {
    if whole_frame {
        // What the fleet sends can be opened, whatever a service thought of it.
        let records = AvlData::open(&bytes).into_iter().flat_map(|data| data.records());
        found.extend(records.map(|record| record.wire().to_vec()));
    } else {
        found.insert(bytes);
    }
}

/// How a database gives what a row holds as 64-bit integers.
struct Dialect {
    ts_us: &'static str,
    boolean: (&'static str, &'static str),
    integer: (&'static str, &'static str),
    thousandths: (&'static str, &'static str),
    io: &'static str,
}

const POSTGRES: Dialect = Dialect {
    ts_us: "(extract(epoch FROM ts) * 1000000)::bigint",
    // A boolean is cast to integer only.
    boolean: ("", "::integer::bigint"),
    integer: ("", "::bigint"),
    thousandths: ("round(", "::double precision * 1000)::bigint"),
    io: "io::text",
};
const SQLITE: Dialect = Dialect {
    ts_us: "ts * 1000",
    boolean: ("", ""),
    integer: ("", ""),
    thousandths: ("CAST(round(", " * 1000) AS INTEGER)"),
    io: "io",
};

fn columns(dialect: &Dialect) -> String {
    let Dialect { ts_us, boolean, integer, thousandths, io } = dialect;
    let as_integer = |name: &str, (before, behind): (&str, &str)| format!("{before}{name}{behind}");
    let numbers = COLUMNS.iter().map(|(name, kind)| match kind {
        Kind::Boolean => as_integer(name, *boolean),
        Kind::Integer => as_integer(name, *integer),
        Kind::Fraction => as_integer(name, *thousandths),
    });
    let numbers: Vec<_> = numbers.collect();
    let fingerprint = as_integer("fingerprint", *integer);
    format!("imei, {ts_us}, {fingerprint}, longitude, latitude, {}, {io}", numbers.join(", "))
}

fn of_postgres(row: &tokio_postgres::Row) -> Result<Stored, AuditError> {
    let mut numbers = [None; COLUMNS.len()];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = row.try_get(FIRST_NUMBER + at)?;
    }
    let io: Option<&str> = row.try_get(IO)?;
    Ok(Stored {
        imei: row.try_get(0)?,
        values: Values {
            ts_us: row.try_get(1)?,
            fingerprint: row.try_get(2)?,
            longitude: row.try_get(3)?,
            latitude: row.try_get(4)?,
            numbers,
            io: io.map(serde_json::from_str).transpose()?,
        },
    })
}

fn of_sqlite(row: &SqliteRow) -> Result<Stored, AuditError> {
    let mut numbers = [None; COLUMNS.len()];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = row.try_get(FIRST_NUMBER + at)?;
    }
    let io: Option<&str> = row.try_get(IO)?;
    Ok(Stored {
        imei: row.try_get(0)?,
        values: Values {
            ts_us: row.try_get(1)?,
            fingerprint: row.try_get(2)?,
            longitude: row.try_get(3)?,
            latitude: row.try_get(4)?,
            numbers,
            io: io.map(serde_json::from_str).transpose()?,
        },
    })
}

/// Where in a row the numbers begin, and where `io` stands behind them.
const FIRST_NUMBER: usize = 5;
const IO: usize = FIRST_NUMBER + COLUMNS.len();
