//! Rows in PostgreSQL's binary COPY format, encoded by hand: a header, for each row the number of its fields and then each
//! as length and bytes, big-endian, and a trailer.

use bytes::{BufMut, BytesMut};

use crate::store::columns::{ColumnType, ELEMENTS};
use crate::store::row::{Batch, Row};
use crate::store::sql::{BASE_COLUMNS, ColumnSet};

/// Replaces what is in `out` by the batch.
pub(super) fn encode(batch: &Batch, columns: ColumnSet, out: &mut BytesMut) -> Result<(), DoesNotFit> {
    out.clear();
    out.put_slice(HEADER);
    let fields = i16::try_from(columns.len()).map_err(|_| DoesNotFit("the number of columns"))?;
    for row in batch.rows() {
        let mut tuple = Tuple { bytes: [0; TUPLE_MAX], len: 0 };
        tuple.put(fields.to_be_bytes());
        tuple.put_base(row)?;
        for column in columns.elements() {
            tuple.put_element(row, column)?;
        }
        out.put_slice(tuple.filled());
        if columns.has_io() {
            put_io(batch.io(row), out)?;
        }
    }
    out.put_i16(TRAILER);
    Ok(())
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
            io: _,
        } = row;
        self.field(imei.get().to_be_bytes());
        self.field(ts_ms.checked_mul(1000).and_then(timestamp).ok_or(DoesNotFit("ts"))?);
        self.field(fingerprint.to_be_bytes());
        self.field(longitude.to_be_bytes());
        self.field(latitude.to_be_bytes());
        self.field(altitude_m.to_be_bytes());
        self.field(i32::from(*angle_deg).to_be_bytes());
        self.field(i32::from(*speed_kmh).to_be_bytes());
        self.field(i16::from(*satellites).to_be_bytes());
        self.field(i16::from(*priority).to_be_bytes());
        self.field(i16::from(*codec).to_be_bytes());
        match generation_type {
            Some(kind) => self.field(i16::from(*kind).to_be_bytes()),
            None => self.null(),
        }
        self.field(i32::from(*event_io_id).to_be_bytes());
        self.field([u8::from(*valid)]);
        self.field([u8::from(*faulty)]);
        self.field(timestamp(*received_at_us).ok_or(DoesNotFit("received_at"))?);
        Ok(())
    }

    fn put_element(&mut self, row: &Row, column: usize) -> Result<(), DoesNotFit> {
        let (Some(element), Some(value)) = (ELEMENTS.get(column), row.elements.get(column)) else {
            self.null();
            return Ok(());
        };
        let too_large = |_| DoesNotFit(element.name);
        match element.column_type {
            ColumnType::Boolean => self.field([u8::from(value != 0)]),
            ColumnType::SmallInt => self.field(i16::try_from(value).map_err(too_large)?.to_be_bytes()),
            ColumnType::Integer => self.field(i32::try_from(value).map_err(too_large)?.to_be_bytes()),
            ColumnType::BigInt => self.field(value.to_be_bytes()),
            ColumnType::RealTenths => {
                let tenths = u16::try_from(value).map_err(too_large)?;
                self.field((f32::from(tenths) / 10.0).to_be_bytes());
            }
        }
        Ok(())
    }

    fn field<const N: usize>(&mut self, value: [u8; N]) {
        const { assert!(N <= FIELD_MAX) }
        // FIELD_MAX fits any integer type.
        self.put(u32::try_from(N).unwrap_or_default().to_be_bytes());
        self.put(value);
    }

    fn null(&mut self) {
        self.put((-1_i32).to_be_bytes());
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let end = self.len + N;
        self.bytes
            .get_mut(self.len..end)
            .expect("TUPLE_MAX holds every column with the longest field")
            .copy_from_slice(&bytes);
        self.len = end;
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
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
fn timestamp(unix_us: i64) -> Option<[u8; 8]> {
    Some(unix_us.checked_sub(EPOCH_US)?.to_be_bytes())
}

/// Signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const JSONB_VERSION: u8 = 1;
/// 2000-01-01T00:00:00Z in microseconds since 1970.
const EPOCH_US: i64 = 946_684_800_000_000;
/// A `bigint`, a `double precision` or a `timestamptz`.
const FIELD_MAX: usize = 8;
/// The number of fields, and every column but `io` with its length.
const TUPLE_MAX: usize = 2 + (BASE_COLUMNS.len() + ELEMENTS.len()) * (4 + FIELD_MAX);
