//! Rows in PostgreSQL's binary COPY format, encoded by hand: a header, for each row the number of its fields and then each
//! as length and bytes, big-endian, and a trailer.

use bytes::{BufMut, BytesMut};

use crate::store::columns::{ColumnType, ELEMENTS};
use crate::store::row::Row;
use crate::store::rows::Part;
use crate::store::sql::{BASE_COLUMNS, ColumnSet};

/// Encodes rows one by one. One for each COPY.
pub(super) struct Encoder {
    fields: i16,
    has_io: bool,
    /// The element columns, so that no bits are looked at row by row.
    elements: Vec<(usize, ColumnType)>,
    tuple: Tuple,
}

impl Encoder {
    /// For these columns; writes the header.
    pub(super) fn begin(columns: ColumnSet, out: &mut BytesMut) -> Self {
        out.put_slice(HEADER);
        let typed = |column: usize| ELEMENTS.get(column).map(|element| (column, element.column_type));
        Self {
            // Some forty.
            fields: i16::try_from(columns.len()).unwrap_or(i16::MAX),
            has_io: columns.has_io(),
            elements: columns.elements().filter_map(typed).collect(),
            tuple: Tuple { bytes: [0; TUPLE_MAX], len: 0 },
        }
    }

    /// Appends rows from `next` on, until the buffer holds so many bytes or there are no more.
    pub(super) fn fill(
        &mut self,
        part: Part<'_>,
        next: &mut usize,
        bytes: usize,
        out: &mut BytesMut,
    ) -> Result<(), DoesNotFit> {
        while out.len() < bytes
            && let Some(row) = part.get(*next)
        {
            self.row(row, part.rows.io(row), out)?;
            *next += 1;
        }
        Ok(())
    }

    #[inline]
    fn row(&mut self, row: &Row, io: Option<&str>, out: &mut BytesMut) -> Result<(), DoesNotFit> {
        let Self { fields, has_io, elements, tuple } = self;
        tuple.len = 0;
        tuple.put(fields.to_be_bytes());
        tuple.put_base(row)?;
        for &(column, column_type) in elements.iter() {
            tuple.put_element(row.elements.get(column), column_type)?;
        }
        out.put_slice(tuple.filled());
        if *has_io {
            put_io(io, out)?;
        }
        Ok(())
    }

    /// Writes the trailer.
    pub(super) fn end(out: &mut BytesMut) {
        out.put_i16(TRAILER);
    }
}

/// A value outside its column. Rows are built from typed values, so this is a mistake in building them.
#[derive(Debug, thiserror::Error)]
#[error("a value does not fit its column: {0}")]
pub(super) struct DoesNotFit(&'static str);

/// One row but its `io`, put together here and appended at once: appending field by field takes ten times as long.
struct Tuple {
    bytes: [u8; TUPLE_MAX],
    len: usize,
}

impl Tuple {
    #[inline]
    fn put_base(&mut self, row: &Row) -> Result<(), DoesNotFit> {
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
            elements: _,
            frame: _,
            record_index: _,
            spans: _,
        } = row;
        self.eight(imei.get().to_be_bytes());
        self.eight(ts_ms.checked_mul(1000).and_then(timestamp).ok_or(DoesNotFit("ts"))?);
        self.four(fingerprint.to_be_bytes());
        self.eight(longitude.to_be_bytes());
        self.eight(latitude.to_be_bytes());
        self.two(altitude_m.to_be_bytes());
        self.four(i32::from(*angle_deg).to_be_bytes());
        self.four(i32::from(*speed_kmh).to_be_bytes());
        self.two(i16::from(*satellites).to_be_bytes());
        self.two(i16::from(*priority).to_be_bytes());
        self.two(i16::from(*codec).to_be_bytes());
        match generation_type {
            Some(kind) => self.two(i16::from(*kind).to_be_bytes()),
            None => self.null(),
        }
        self.four(i32::from(*event_io_id).to_be_bytes());
        self.one([u8::from(*valid)]);
        self.one([u8::from(*faulty)]);
        self.eight(timestamp(*received_at_us).ok_or(DoesNotFit("received_at"))?);
        Ok(())
    }

    #[inline]
    fn put_element(&mut self, value: Option<i64>, column_type: ColumnType) -> Result<(), DoesNotFit> {
        let Some(value) = value else {
            self.null();
            return Ok(());
        };
        let too_large = |_| DoesNotFit("an element");
        match column_type {
            ColumnType::Boolean => self.one([u8::from(value != 0)]),
            ColumnType::SmallInt => self.two(i16::try_from(value).map_err(too_large)?.to_be_bytes()),
            ColumnType::Integer => self.four(i32::try_from(value).map_err(too_large)?.to_be_bytes()),
            ColumnType::BigInt => self.eight(value.to_be_bytes()),
            ColumnType::RealTenths => {
                let tenths = u16::try_from(value).map_err(too_large)?;
                self.four((f32::from(tenths) / 10.0).to_be_bytes());
            }
        }
        Ok(())
    }

    /// A field of eight bytes: its length and its value, written together.
    #[inline]
    fn eight(&mut self, value: [u8; 8]) {
        self.put(with_length::<8, 12>(value));
    }

    #[inline]
    fn four(&mut self, value: [u8; 4]) {
        self.put(with_length::<4, 8>(value));
    }

    #[inline]
    fn two(&mut self, value: [u8; 2]) {
        self.put(with_length::<2, 6>(value));
    }

    #[inline]
    fn one(&mut self, value: [u8; 1]) {
        self.put(with_length::<1, 5>(value));
    }

    #[inline]
    fn null(&mut self) {
        self.put((-1_i32).to_be_bytes());
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let end = self.len + N;
        self.bytes
            .get_mut(self.len..end)
            .expect("TUPLE_MAX holds every column with the longest field")
            .copy_from_slice(&bytes);
        self.len = end;
    }

    #[inline]
    fn filled(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A value behind its length, N + 4 = M bytes.
#[inline]
fn with_length<const N: usize, const M: usize>(value: [u8; N]) -> [u8; M] {
    const { assert!(M == N + 4 && N < 256) }
    let mut field = [0; M];
    // The upper three bytes of the length are 0.
    field[3] = N.to_le_bytes()[0];
    field[4..].copy_from_slice(&value);
    field
}

/// `jsonb`: a version byte, then the text.
fn put_io(io: Option<&str>, out: &mut BytesMut) -> Result<(), DoesNotFit> {
    let Some(text) = io else {
        out.put_i32(-1);
        return Ok(());
    };
    out.put_i32(i32::try_from(text.len() + 1).map_err(|_| DoesNotFit("io"))?);
    out.put_u8(JSONB_VERSION);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// `timestamptz`: microseconds since 2000-01-01 UTC.
#[inline]
fn timestamp(unix_us: i64) -> Option<[u8; 8]> {
    Some(unix_us.checked_sub(EPOCH_US)?.to_be_bytes())
}

/// Signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const JSONB_VERSION: u8 = 1;
/// 2000-01-01T00:00:00Z in microseconds since 1970.
const EPOCH_US: i64 = 946_684_800_000_000;
/// A length, and a `bigint`, a `double precision` or a `timestamptz`.
const FIELD_MAX: usize = 4 + 8;
/// The number of fields, and every column but `io` with its length.
const TUPLE_MAX: usize = 2 + (BASE_COLUMNS.len() + ELEMENTS.len()) * FIELD_MAX;
