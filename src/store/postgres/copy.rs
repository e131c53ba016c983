//! Rows in PostgreSQL's binary COPY format: a header; for each row the number of its fields, then each field as length
//! and bytes, big-endian; a trailer.
//!
//! No library serves: `BinaryCopyInWriter` of tokio-postgres appends field by field through a trait object, which takes
//! ten times as long as putting a row together in place.

use bytes::{BufMut, BytesMut};

use crate::store::model::column_set::{BASE_COLUMNS, ColumnSet};
use crate::store::model::columns::{ColumnType, ELEMENTS};
use crate::store::model::row::Row;
use crate::store::model::rows::{RowSlice, Rows};

/// Encodes rows one by one. Each COPY has its own encoder.
pub(crate) struct Encoder {
    fields: i16,
    has_generation_type: bool,
    has_io: bool,
    /// The element columns, so that no row has to search its bits.
    elements: Vec<ElementField>,
    /// Bytes of all element columns if none is NULL.
    full: usize,
    /// The mask of the element columns.
    columns: u32,
}

impl Encoder {
    /// Prepares for these columns, and writes the header.
    pub(crate) fn begin(columns: ColumnSet, out: &mut BytesMut) -> Self {
        out.put_slice(HEADER);
        let mut full = 0;
        let elements: Vec<_> = columns
            .elements()
            .filter_map(|column| {
                let field = ElementField::new(column, full)?;
                full += 4 + usize::from(field.size);
                Some(field)
            })
            .collect();
        Self {
            // About forty.
            fields: i16::try_from(columns.len()).unwrap_or(i16::MAX),
            has_generation_type: columns.has_generation_type(),
            has_io: columns.has_io(),
            elements,
            full,
            columns: columns.present(),
        }
    }

    /// Appends rows from `next` on, until the buffer holds `bytes` bytes or no row is left.
    pub(crate) fn fill(
        &self,
        part: RowSlice<'_>,
        next: &mut usize,
        bytes: usize,
        out: &mut BytesMut,
    ) -> Result<(), DoesNotFit> {
        // Each row is put together here and appended as a whole: appending field by field takes ten times as long.
        let mut tuple = [0; TUPLE_MAX];
        while out.len() < bytes
            && let Some(row) = part.get(*next)
        {
            self.row(row, part.rows.io(row), &mut tuple, out)?;
            *next += 1;
        }
        Ok(())
    }

    #[inline]
    fn row(
        &self,
        row: &Row,
        io: Option<&str>,
        tuple: &mut [u8; TUPLE_MAX],
        out: &mut BytesMut,
    ) -> Result<(), DoesNotFit> {
        let (base, rest) = tuple.split_first_chunk_mut::<BASE_LEN>().ok_or(TOO_LONG)?;
        put_base(row, self.fields, base)?;
        let mut at = 0;
        if self.has_generation_type {
            at += put_nullable(row.generation_type.map(|kind| u64::from(kind) << 48), 2, field_at(rest, at)?);
        }
        if row.elements.present() & self.columns == self.columns {
            // Nearly every row: without NULL, every field has a fixed offset.
            for field in &self.elements {
                let field_bytes = field_at(rest, at + field.offset)?;
                field_bytes[..4].copy_from_slice(&field.length);
                field_bytes[4..].copy_from_slice(&field.bits(row).to_be_bytes());
            }
            at += self.full;
        } else {
            for field in &self.elements {
                let bits = (row.elements.present() & field.mask != 0).then(|| field.bits(row));
                at += put_nullable(bits, field.size, field_at(rest, at)?);
            }
        }
        // `io` is nearly always NULL, and then appended with the rest.
        if self.has_io && io.is_none() {
            field_at(rest, at)?[..4].copy_from_slice(&u32::MAX.to_be_bytes());
            at += 4;
        }
        out.put_slice(tuple.get(..BASE_LEN + at).unwrap_or_default());
        match io {
            Some(text) => put_io(text, out),
            None => Ok(()),
        }
    }

    /// Writes the trailer.
    pub(crate) fn end(out: &mut BytesMut) {
        out.put_i16(TRAILER);
    }
}

/// How a typed column is written.
#[derive(Clone, Copy)]
struct ElementField {
    column: usize,
    mask: u32,
    /// Bytes of a value.
    size: u8,
    /// The size, encoded as it precedes the value.
    length: [u8; 4],
    /// Bits of the longest value that this one lacks.
    unused: u32,
    /// Its offset if no field before it is NULL.
    offset: usize,
}

impl ElementField {
    fn new(column: usize, offset: usize) -> Option<Self> {
        let size = match ELEMENTS.get(column)?.column_type {
            ColumnType::Boolean => 1,
            ColumnType::SmallInt => 2,
            ColumnType::Integer | ColumnType::RealTenths => 4,
            ColumnType::BigInt => 8,
        };
        let unused = 64 - 8 * u32::from(size);
        Some(Self { column, mask: 1 << column, size, length: u32::from(size).to_be_bytes(), unused, offset })
    }

    /// The value, left-aligned in the longest field. The shift drops the upper bits, which only extend the sign.
    #[inline]
    fn bits(&self, row: &Row) -> u64 {
        u64::from(row.elements.bits(self.column)) << (self.unused & 63)
    }
}

#[inline]
fn field_at(rest: &mut [u8], at: usize) -> Result<&mut [u8; FIELD_MAX], DoesNotFit> {
    rest.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(TOO_LONG)
}

/// Writes length and value, both always in full. Returns how many of the bytes count.
#[inline]
fn put_nullable(bits: Option<u64>, size: u8, out: &mut [u8; FIELD_MAX]) -> usize {
    let (length, counts) = if bits.is_some() { (u32::from(size), 4 + usize::from(size)) } else { (u32::MAX, 4) };
    out[..4].copy_from_slice(&length.to_be_bytes());
    out[4..].copy_from_slice(&bits.unwrap_or_default().to_be_bytes());
    counts
}

/// Encodes rows in their order as one COPY. Returns the names of its columns, and passes its bytes to `sink` in parts
/// of about 64 KiB, as the store sends them. For benchmarks and exports.
///
/// # Errors
/// [`DoesNotFit`], which a row built from a record never causes.
pub fn encode_copy(rows: &Rows, mut sink: impl FnMut(&[u8])) -> Result<String, DoesNotFit> {
    let columns = ColumnSet::of(rows);
    let mut out = BytesMut::with_capacity(COPY_PART + 4096);
    let encoder = Encoder::begin(columns, &mut out);
    let mut next = 0;
    while next < rows.len() {
        encoder.fill(rows.whole(), &mut next, COPY_PART, &mut out)?;
        sink(&out);
        out.clear();
    }
    Encoder::end(&mut out);
    sink(&out);
    Ok(columns.names())
}

/// A value outside the range of its column. Rows are built from typed values, so this is a bug in building them.
#[derive(Debug, thiserror::Error)]
#[error("a value does not fit its column: {0}")]
pub struct DoesNotFit(&'static str);

/// Writes the number of fields and the columns that every row fills, each at its fixed offset.
#[inline]
fn put_base(row: &Row, fields: i16, out: &mut [u8; BASE_LEN]) -> Result<(), DoesNotFit> {
    // Every field by name, so that a new field of Row cannot be forgotten here.
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
        generation_type: _,
        event_io_id,
        valid,
        faulty,
        received_at_us,
        elements: _,
        frame: _,
        record_index: _,
        spans: _,
    } = row;
    let mut base = Base { out, at: 0 };
    base.put(fields.to_be_bytes());
    base.field(imei.get().to_be_bytes());
    base.field(ts_ms.checked_mul(1000).and_then(timestamp).ok_or(DoesNotFit("ts"))?);
    base.field(fingerprint.to_be_bytes());
    base.field(longitude.to_be_bytes());
    base.field(latitude.to_be_bytes());
    base.field(altitude_m.to_be_bytes());
    base.field(i32::from(*angle_deg).to_be_bytes());
    base.field(i32::from(*speed_kmh).to_be_bytes());
    base.field(i16::from(*satellites).to_be_bytes());
    base.field(i16::from(*priority).to_be_bytes());
    base.field(i16::from(*codec).to_be_bytes());
    base.field(i32::from(*event_io_id).to_be_bytes());
    base.field([u8::from(*valid)]);
    base.field([u8::from(*faulty)]);
    base.field(timestamp(*received_at_us).ok_or(DoesNotFit("received_at"))?);
    Ok(())
}

/// Writes fields one after the other. All lengths are constants and everything is inlined, so the offsets are constants
/// too.
struct Base<'a> {
    out: &'a mut [u8; BASE_LEN],
    at: usize,
}

impl Base<'_> {
    #[inline]
    fn field<const N: usize>(&mut self, value: [u8; N]) {
        // No field is longer than 8 bytes.
        self.put([0, 0, 0, N.to_le_bytes()[0]]);
        self.put(value);
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let end = self.at + N;
        self.out[self.at..end].copy_from_slice(&bytes);
        self.at = end;
    }
}

/// `jsonb`: a version byte, then the text.
fn put_io(text: &str, out: &mut BytesMut) -> Result<(), DoesNotFit> {
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

/// Bytes passed to the connection at a time. Larger parts are not faster, and the connection buffers as much.
pub(crate) const COPY_PART: usize = 64 * 1024;
/// Signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const JSONB_VERSION: u8 = 1;
/// 2000-01-01T00:00:00Z in microseconds since 1970.
const EPOCH_US: i64 = 946_684_800_000_000;
/// A length, and a `bigint`, a `double precision` or a `timestamptz`.
const FIELD_MAX: usize = 4 + 8;
/// The number of fields, and the columns that every row fills, by their widths: imei, both times, longitude, latitude;
/// fingerprint, angle, speed, event; altitude, satellites, priority, codec; valid, faulty.
const BASE_LEN: usize = 2 + BASE_COLUMNS.len() * 4 + 5 * 8 + 4 * 4 + 4 * 2 + 2;
/// The same with every other column, and a NULL `io`.
const TUPLE_MAX: usize = BASE_LEN + (2 + ELEMENTS.len()) * FIELD_MAX;
const TOO_LONG: DoesNotFit = DoesNotFit("the row");
