//! Sample rows, and the values that a database must give back for them.

use odograph::ingest::drain::LatestPositions;
use odograph::store::{Batch, ColumnType, ELEMENTS, Row, Spans, TypedElements};
use odograph_journal::Position;
use serde_json::Value;
use teltonika_codecs::Imei;

/// A row and its `io` object as JSON text. An empty text is NULL.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The row without `io`.
    pub row: Row,
    /// The JSON text.
    pub io: String,
}

/// A stored value, independent of the database's name for its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// A boolean.
    Boolean(bool),
    /// Any integer type, and a time as its number.
    Integer(i64),
    /// Any floating point type.
    Real(f64),
    /// A JSON text, parsed.
    Json(Value),
}

impl Cell {
    fn real(value: f64) -> Self {
        Self::Real(value)
    }

    fn integer(value: impl Into<i64>) -> Self {
        Self::Integer(value.into())
    }
}

impl Sample {
    /// Its values in the order of [`columns`].
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let row = &self.row;
        let mut cells = vec![
            Cell::integer(i64::try_from(row.imei.get()).unwrap()),
            Cell::integer(row.ts_ms),
            Cell::integer(row.fingerprint),
            Cell::real(row.longitude),
            Cell::real(row.latitude),
            Cell::integer(row.altitude_m),
            Cell::integer(row.angle_deg),
            Cell::integer(row.speed_kmh),
            Cell::integer(row.satellites),
            Cell::integer(row.priority),
            Cell::integer(row.codec),
            row.generation_type.map_or(Cell::Null, Cell::integer),
            Cell::integer(row.event_io_id),
            Cell::Boolean(row.valid),
            Cell::Boolean(row.faulty),
            Cell::integer(row.received_at_us),
        ];
        cells.extend(ELEMENTS.iter().enumerate().map(|(column, element)| {
            let Some(value) = row.elements.get(column) else { return Cell::Null };
            match element.column_type {
                ColumnType::Boolean => Cell::Boolean(value == 1),
                ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt => Cell::Integer(value),
                ColumnType::RealTenths => Cell::Real(f64::from(i32::try_from(value).unwrap()) / 10.0),
            }
        }));
        cells.push(if self.io.is_empty() { Cell::Null } else { Cell::Json(serde_json::from_str(&self.io).unwrap()) });
        cells
    }
}

/// Every column of the tables, in order: its name, and its types in PostgreSQL and SQLite.
#[must_use]
pub fn columns() -> Vec<(&'static str, &'static str, &'static str)> {
    let base = [
        ("imei", "bigint", "INTEGER"),
        ("ts", "timestamp with time zone", "INTEGER"),
        ("fingerprint", "integer", "INTEGER"),
        ("longitude", "double precision", "REAL"),
        ("latitude", "double precision", "REAL"),
        ("altitude_m", "smallint", "INTEGER"),
        ("angle_deg", "integer", "INTEGER"),
        ("speed_kmh", "integer", "INTEGER"),
        ("satellites", "smallint", "INTEGER"),
        ("priority", "smallint", "INTEGER"),
        ("codec", "smallint", "INTEGER"),
        ("generation_type", "smallint", "INTEGER"),
        ("event_io_id", "integer", "INTEGER"),
        ("valid", "boolean", "INTEGER"),
        ("faulty", "boolean", "INTEGER"),
        ("received_at", "timestamp with time zone", "INTEGER"),
    ];
    let elements = ELEMENTS.iter().map(|element| match element.column_type {
        ColumnType::Boolean => (element.name, "boolean", "INTEGER"),
        ColumnType::SmallInt => (element.name, "smallint", "INTEGER"),
        ColumnType::Integer => (element.name, "integer", "INTEGER"),
        ColumnType::BigInt => (element.name, "bigint", "INTEGER"),
        ColumnType::RealTenths => (element.name, "real", "REAL"),
    });
    base.into_iter().chain(elements).chain([("io", "jsonb", "TEXT")]).collect()
}

/// A batch with all rows as new, and the latest positions among them.
#[must_use]
pub fn batch<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Batch {
    let (mut batch, mut newest) = (Batch::default(), LatestPositions::default());
    for sample in samples {
        batch.new.push(&sample.row, &wire(sample), |io| io.push_str(&sample.io));
        newest.consider(&sample.row, &sample.io);
    }
    newest.fill(&mut batch.latest);
    batch
}

/// Bytes in place of the record's wire form: different bytes for a different record.
#[must_use]
pub fn wire(sample: &Sample) -> Vec<u8> {
    let row = &sample.row;
    [&row.imei.get().to_be_bytes()[..], &row.ts_ms.to_be_bytes(), &row.fingerprint.to_be_bytes()].concat()
}

/// A valid position without elements, received two seconds later.
#[must_use]
pub fn row(imei: &str, ts_ms: i64, fingerprint: i32) -> Sample {
    let row = Row {
        imei: Imei::from_ascii(imei.as_bytes()).unwrap(),
        ts_ms,
        fingerprint,
        longitude: 25.279_652_1,
        latitude: 54.687_156_3,
        altitude_m: 112,
        angle_deg: 270,
        speed_kmh: 83,
        satellites: 14,
        priority: 1,
        codec: 0x8E,
        generation_type: None,
        event_io_id: 0,
        valid: true,
        faulty: false,
        received_at_us: (ts_ms + 2000) * 1000,
        elements: TypedElements::default(),
        frame: Position(7),
        record_index: 3,
        spans: Spans::default(),
    };
    Sample { row, io: String::new() }
}

/// A value in every column, each at the end of its range that is harder to store.
#[must_use]
pub fn full_row(imei: &str, ts_ms: i64) -> Sample {
    let io = r#"{"11":18446744073709551615,"256":"57564d","10359":0,"385":"00"}"#.to_owned();
    let row = row(imei, ts_ms, i32::MIN).row;
    let row = Row {
        longitude: f64::from(i32::MIN) / 1e7,
        latitude: f64::from(i32::MAX) / 1e7,
        altitude_m: -430,
        angle_deg: u16::MAX,
        speed_kmh: u16::MAX,
        satellites: u8::MAX,
        priority: u8::MAX,
        codec: 0x10,
        generation_type: Some(7),
        event_io_id: u16::MAX,
        received_at_us: ts_ms * 1000 + 1_234_567,
        ..row
    };
    let mut sample = Sample { row, io };
    for (column, element) in ELEMENTS.iter().enumerate() {
        let value = match (element.column_type, element.signed, element.width) {
            (ColumnType::Boolean, ..) => 1,
            (_, true, _) => i64::from(i16::MIN) + i64::try_from(column).unwrap(),
            (_, false, 1) => i64::from(u8::MAX),
            (_, false, 2) => i64::from(u16::MAX),
            (_, false, _) => i64::from(u32::MAX),
        };
        sample.row.elements.set(column, value);
    }
    sample
}
