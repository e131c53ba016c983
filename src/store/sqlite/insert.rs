//! The inserts: many rows a statement, every value a bound parameter.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe};

use crate::store::columns::{ColumnType, ELEMENTS};
use crate::store::row::{Batch, Row};
use crate::store::sql::{ColumnSet, newest_wins};

/// The two inserts of a column set.
pub(super) struct Statements {
    pub(super) positions: Insert,
    pub(super) latest: Insert,
}

impl Statements {
    pub(super) fn new(columns: ColumnSet) -> Self {
        Self {
            positions: Insert::new("positions", columns, "ON CONFLICT DO NOTHING"),
            latest: Insert::new("latest_positions", columns, &newest_wins()),
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
    /// The full statement, which most rows take: its text never changes, so it is prepared once.
    full: Arc<String>,
}

impl Insert {
    fn new(table: &str, columns: ColumnSet, ending: &str) -> Self {
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

    /// Gives the number of rows that were written.
    pub(super) async fn run(
        &self,
        connection: &mut SqliteConnection,
        batch: &Batch,
        rows: &[&Row],
    ) -> Result<u64, sqlx::Error> {
        let mut written = 0;
        for part in rows.chunks(self.rows) {
            let full = part.len() == self.rows;
            let text = if full { Arc::clone(&self.full) } else { Arc::new(self.text(part.len())) };
            let mut arguments = SqliteArguments::default();
            arguments.reserve(part.len() * self.columns.len(), 0);
            for row in part {
                bind(&mut arguments, batch, row, self.columns).map_err(sqlx::Error::Encode)?;
            }
            let query = sqlx::query_with(AssertSqlSafe(text), arguments).persistent(full);
            written += query.execute(&mut *connection).await?.rows_affected();
        }
        Ok(written)
    }
}

type BindResult = Result<(), sqlx::error::BoxDynError>;

fn bind(arguments: &mut SqliteArguments, batch: &Batch, row: &Row, columns: ColumnSet) -> BindResult {
    // Every field by name: one added to Row must not be forgotten here. In the order of BASE_COLUMNS.
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
        io: _,
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
    arguments.add(*generation_type)?;
    arguments.add(*event_io_id)?;
    arguments.add(*valid)?;
    arguments.add(*faulty)?;
    arguments.add(*received_at_us)?;
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
        arguments.add(batch.io(row).map(str::to_owned))?;
    }
    Ok(())
}

/// SQLite's default limit for variables of a statement.
const VARIABLES_MAX: usize = 32_766;
/// Longer statements are no faster.
const ROWS_MAX: usize = 256;
