//! Reads rows and quarantined records from either database.

use std::collections::HashSet;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};
use teltonika_codecs::{AvlData, Imei};
use tokio_postgres::types::ToSql;

use super::expected::{COLUMNS, ColumnKind, RowValues};
use super::range::{FleetRange, signed};
use crate::database::{Database, DatabaseError};

/// A row of `positions`.
#[derive(Clone, Debug)]
pub(super) struct PositionRow {
    pub(super) imei: i64,
    pub(super) values: RowValues,
}

type PositionRows<'a> = Pin<Box<dyn Stream<Item = Result<PositionRow, DatabaseError>> + Send + 'a>>;

/// Streams the rows of a fleet in the order of the key.
pub(super) async fn positions(database: &mut Database, range: FleetRange) -> Result<PositionRows<'_>, DatabaseError> {
    let FleetRange { first, last, since_ms } = range;
    let order = "ORDER BY imei, ts, fingerprint";
    Ok(match database {
        Database::Postgres(client) => {
            let query = format!(
                "SELECT {} FROM positions WHERE imei BETWEEN $1 AND $2 \
                 AND ts >= to_timestamp($3::bigint::double precision / 1000) {order}",
                columns(&POSTGRES)
            );
            let parameters: [&(dyn ToSql + Sync); 3] = [&first, &last, &since_ms];
            let rows = client.query_raw(&query, parameters).await?;
            Box::pin(rows.map(|row| of_postgres(&row?)))
        }
        Database::Sqlite(connection) => {
            let query =
                format!("SELECT {} FROM positions WHERE imei BETWEEN ? AND ? AND ts >= ? {order}", columns(&SQLITE));
            let rows = sqlx::query(AssertSqlSafe(query)).bind(first).bind(last).bind(since_ms).fetch(connection);
            Box::pin(rows.map(|row| of_sqlite(&row?)))
        }
    })
}

/// The bytes of a tracker's records in quarantine, including those in whole frames.
pub(super) async fn quarantined(database: &mut Database, imei: Imei) -> Result<HashSet<Vec<u8>>, DatabaseError> {
    let imei = signed(imei.get());
    let (select, mut found) = ("SELECT record_index IS NULL, bytes FROM quarantined_records", HashSet::new());
    match database {
        Database::Postgres(client) => {
            for row in client.query(&format!("{select} WHERE imei = $1"), &[&imei]).await? {
                collect_records(row.try_get(0)?, row.try_get(1)?, &mut found);
            }
        }
        Database::Sqlite(connection) => {
            let query = sqlx::query(AssertSqlSafe(format!("{select} WHERE imei = ?"))).bind(imei);
            let mut rows = query.fetch(connection);
            while let Some(row) = rows.try_next().await? {
                collect_records(row.try_get(0)?, row.try_get(1)?, &mut found);
            }
        }
    }
    Ok(found)
}

fn collect_records(whole_frame: bool, bytes: Vec<u8>, found: &mut HashSet<Vec<u8>>) {
    if whole_frame {
        // The codec opens every frame that the fleet sends, whatever the service made of it.
        let records = AvlData::open(&bytes).into_iter().flat_map(|data| data.records());
        found.extend(records.map(|record| record.wire().to_vec()));
    } else {
        found.insert(bytes);
    }
}

/// How a database expresses the values of a row as 64-bit integers.
struct Dialect {
    ts_us: &'static str,
    boolean: (&'static str, &'static str),
    integer: (&'static str, &'static str),
    thousandths: (&'static str, &'static str),
    io: &'static str,
}

const POSTGRES: Dialect = Dialect {
    ts_us: "(extract(epoch FROM ts) * 1000000)::bigint",
    // A boolean casts to integer only.
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
        ColumnKind::Boolean => as_integer(name, *boolean),
        ColumnKind::Integer => as_integer(name, *integer),
        ColumnKind::Fraction => as_integer(name, *thousandths),
    });
    let numbers: Vec<_> = numbers.collect();
    let fingerprint = as_integer("fingerprint", *integer);
    format!("imei, {ts_us}, {fingerprint}, longitude, latitude, {}, {io}", numbers.join(", "))
}

fn of_postgres(row: &tokio_postgres::Row) -> Result<PositionRow, DatabaseError> {
    let mut numbers = [None; COLUMNS.len()];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = row.try_get(FIRST_NUMBER + at)?;
    }
    let io: Option<&str> = row.try_get(IO)?;
    Ok(PositionRow {
        imei: row.try_get(0)?,
        values: RowValues {
            ts_us: row.try_get(1)?,
            fingerprint: row.try_get(2)?,
            longitude: row.try_get(3)?,
            latitude: row.try_get(4)?,
            numbers,
            io: io.map(serde_json::from_str).transpose()?,
        },
    })
}

fn of_sqlite(row: &SqliteRow) -> Result<PositionRow, DatabaseError> {
    let mut numbers = [None; COLUMNS.len()];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = row.try_get(FIRST_NUMBER + at)?;
    }
    let io: Option<&str> = row.try_get(IO)?;
    Ok(PositionRow {
        imei: row.try_get(0)?,
        values: RowValues {
            ts_us: row.try_get(1)?,
            fingerprint: row.try_get(2)?,
            longitude: row.try_get(3)?,
            latitude: row.try_get(4)?,
            numbers,
            io: io.map(serde_json::from_str).transpose()?,
        },
    })
}

/// Index of the first number in a row, and of `io` after the numbers.
const FIRST_NUMBER: usize = 5;
const IO: usize = FIRST_NUMBER + COLUMNS.len();
