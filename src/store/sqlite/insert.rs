//! Inserts of many rows per statement. Every value is a bound parameter.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe};

use crate::store::error::classify::SqlErrorKind;
use crate::store::error::store_error::StoreError;
use crate::store::model::column_set::{ColumnSet, latest_wins};
use crate::store::model::columns::{ColumnType, ELEMENTS};
use crate::store::model::row::Row;
use crate::store::model::rows::{RowSlice, Rows};

/// The two inserts of a column set.
pub(super) struct Statements {
    pub(super) positions: Insert,
    pub(super) latest: Insert,
}

impl Statements {
    pub(super) fn new(columns: ColumnSet) -> Self {
        Self {
            positions: Insert::new("positions", columns, "ON CONFLICT (imei, ts, fingerprint) DO NOTHING"),
            latest: Insert::new("latest_positions", columns, &latest_wins()),
        }
    }
}

/// An insert of many rows into one table.
pub(super) struct Insert {
    columns: ColumnSet,
    /// Rows of a full statement.
    rows: usize,
    beginning: String,
    ending: String,
    /// The full statement, which most rows take. Its text never changes, so it is prepared once.
    full: Arc<String>,
}

impl Insert {
    pub(super) fn new(table: &str, columns: ColumnSet, ending: &str) -> Self {
        let mut insert = Self {
            columns,
            rows: (VARIABLES_MAX / columns.len()).clamp(1, ROWS_MAX),
            beginning: format!("INSERT INTO {table} ({}) VALUES ", columns.names()),
            ending: format!(" {ending}"),
            full: Arc::default(),
        };
        insert.full = Arc::new(insert.text(insert.rows));
        insert
    }

    fn text(&self, rows: usize) -> String {
        let tuple = format!("({}?)", "?,".repeat(self.columns.len() - 1));
        let mut text = self.beginning.clone();
        for row in 0..rows {
            text.push_str(if row == 0 { "" } else { "," });
            text.push_str(&tuple);
        }
        text.push_str(&self.ending);
        text
    }

    /// Inserts rows and returns how many were written. Passes a row that the database refuses to `refuse`. SQLite
    /// undoes a failed statement and continues the transaction, so the rows are halved until the refused one is alone.
    pub(super) async fn run(
        &self,
        connection: &mut SqliteConnection,
        rows: &Rows,
        mut refuse: impl FnMut(&Row, &StoreError),
    ) -> Result<u64, StoreError> {
        let mut parts: Vec<_> = rows.whole().chunks(self.rows).rev().collect();
        let mut written = 0;
        while let Some(part) = parts.pop() {
            match self.insert(connection, part).await {
                Ok(count) => written += count,
                Err(error) if error.kind() == SqlErrorKind::Row => match part.halves() {
                    Ok([front, back]) => parts.extend([back, front]),
                    Err(row) => row.into_iter().for_each(|row| refuse(row, &error)),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    async fn insert(&self, connection: &mut SqliteConnection, part: RowSlice<'_>) -> Result<u64, StoreError> {
        const INSERTING: &str = "inserting rows";
        let failed = |error| StoreError::sqlx(INSERTING, error);
        let full = part.len() == self.rows;
        let text = if full { Arc::clone(&self.full) } else { Arc::new(self.text(part.len())) };
        let mut arguments = SqliteArguments::default();
        arguments.reserve(part.len() * self.columns.len(), 0);
        for row in (0..part.len()).filter_map(|index| part.get(index)) {
            bind(&mut arguments, part.rows, row, self.columns).map_err(|error| failed(sqlx::Error::Encode(error)))?;
        }
        let query = sqlx::query_with(AssertSqlSafe(text), arguments).persistent(full);
        Ok(query.execute(&mut *connection).await.map_err(failed)?.rows_affected())
    }
}

type BindResult = Result<(), sqlx::error::BoxDynError>;

fn bind(arguments: &mut SqliteArguments, rows: &Rows, row: &Row, columns: ColumnSet) -> BindResult {
    // Every field by name, so that a new field of Row cannot be forgotten here. In the order of BASE_COLUMNS.
    let Row {
        imei,
        ts_ms,
        fingerprint,
        longitude,
        latitude,
        altitude_m,
        angle_deg,
        speed_kmh,
        satellites,
        priority,
        codec,
        generation_type,
        event_io_id,
        valid,
        faulty,
        received_at_us,
        elements,
        frame: _,
        record_index: _,
        spans: _,
    } = row;
    arguments.add(i64::try_from(imei.get())?)?;
    arguments.add(*ts_ms)?;
    arguments.add(*fingerprint)?;
    arguments.add(*longitude)?;
    arguments.add(*latitude)?;
    arguments.add(*altitude_m)?;
    arguments.add(*angle_deg)?;
    arguments.add(*speed_kmh)?;
    arguments.add(*satellites)?;
    arguments.add(*priority)?;
    arguments.add(*codec)?;
    arguments.add(*event_io_id)?;
    arguments.add(*valid)?;
    arguments.add(*faulty)?;
    arguments.add(*received_at_us)?;
    if columns.has_generation_type() {
        arguments.add(*generation_type)?;
    }
    for column in columns.elements() {
        let value = elements.get(column);
        match ELEMENTS.get(column).map(|element| element.column_type) {
            Some(ColumnType::RealTenths) => {
                arguments.add(value.map(i32::try_from).transpose()?.map(|tenths| f64::from(tenths) / 10.0))?;
            }
            _ => arguments.add(value)?,
        }
    }
    if columns.has_io() {
        arguments.add(rows.io(row).map(str::to_owned))?;
    }
    Ok(())
}

/// SQLite's default limit for variables of a statement.
const VARIABLES_MAX: usize = 32_766;
/// Longer statements are not faster.
const ROWS_MAX: usize = 256;
