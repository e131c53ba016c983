//! A row as every store accepts it: plain values in wire units.

use teltonika_codecs::{Imei, Value};

use super::columns::{ColumnType, ELEMENT_COLUMNS, ELEMENTS};
use odograph_journal::Position;

/// One position, ready to be stored. Identity: (imei, `ts_ms`, fingerprint).
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The device.
    pub imei: Imei,
    /// Device time, milliseconds since 1970-01-01 UTC, inside [`MIN_TS_MS`]`..=`[`MAX_TS_MS`].
    pub ts_ms: i64,
    /// CRC-32 (ISO-HDLC) over the record's wire bytes, its bits as a signed integer.
    pub fingerprint: i32,
    /// Degrees east.
    pub longitude: f64,
    /// Degrees north.
    pub latitude: f64,
    /// Metres.
    pub altitude_m: i16,
    /// Degrees clockwise from north.
    pub angle_deg: u16,
    /// km/h.
    pub speed_kmh: u16,
    /// Satellites in use.
    pub satellites: u8,
    /// As the device sent it.
    pub priority: u8,
    /// Codec id on the wire.
    pub codec: u8,
    /// Codec 16 only.
    pub generation_type: Option<u8>,
    /// The element that caused the record; 0 for none.
    pub event_io_id: u16,
    /// Whether the record carries a position (a fix, in range).
    pub valid: bool,
    /// Whether a marshal declared it faulty.
    pub faulty: bool,
    /// Receive time, microseconds since 1970-01-01 UTC.
    pub received_at_us: i64,
    /// Values of the typed columns.
    pub elements: TypedElements,
    /// The frame that brought it.
    pub frame: Position,
    /// Its index among the frame's records, from 0.
    pub record_index: u8,
    /// Where the collection that holds the row keeps its `io` object and its bytes on the wire.
    pub spans: Spans,
}

/// The identity of a record: device, device time, and the fingerprint of its bytes. Sorts like the table's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The device.
    pub imei: u64,
    /// Device time, milliseconds since 1970-01-01 UTC.
    pub ts_ms: i64,
    /// CRC-32 over the record's wire bytes.
    pub fingerprint: i32,
}

impl Row {
    /// The key of the row.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { imei: self.imei.get(), ts_ms: self.ts_ms, fingerprint: self.fingerprint }
    }
}

/// Tenths in a whole.
const TENTHS: f32 = 10.0;
/// Earliest device time that every store can hold: a tracker sends unsigned milliseconds.
pub const MIN_TS_MS: i64 = 0;
/// Latest device time that every store and calendar can hold: 9999-12-31T23:59:59.999Z.
pub const MAX_TS_MS: i64 = 253_402_300_799_999;

/// Values of the typed element columns of one row, as [`super::columns::ElementColumn::fit`] returns them. 32 bits each,
/// because no typed element is wider on the wire: a signed integer is extended, a `real` keeps its own bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypedElements {
    present: u32,
    values: [u32; ELEMENT_COLUMNS],
}

impl TypedElements {
    /// Sets the value of a column from one on the wire. Returns false if it does not fit.
    #[inline]
    pub fn put(&mut self, column: usize, value: Value<'_>) -> bool {
        let fitting = ELEMENTS.get(column).and_then(|element| element.fit(value));
        if let Some(number) = fitting {
            self.keep(column, number);
        }
        fitting.is_some()
    }

    /// Sets the value of a column, as [`super::columns::ElementColumn::fit`] returns it. A second value replaces the first.
    /// A value that does not fit is ignored.
    pub fn set(&mut self, column: usize, value: i64) {
        if ELEMENTS.get(column).is_some_and(|element| element.holds(value)) {
            self.keep(column, value);
        } else {
            self.clear(column);
        }
    }

    #[inline]
    fn keep(&mut self, column: usize, value: i64) {
        let (Some(place), Some(element)) = (self.values.get_mut(column), ELEMENTS.get(column)) else { return };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "elements of 1, 2 or 4 bytes")]
        let bits = value as u32;
        *place = match element.column_type {
            ColumnType::RealTenths => (f32::from(u16::try_from(bits).unwrap_or(u16::MAX)) / TENTHS).to_bits(),
            _ => bits,
        };
        self.present |= 1 << column;
    }

    /// The stored bits of a column's value: 0 if there is none.
    #[inline]
    pub(crate) fn bits(&self, column: usize) -> u32 {
        self.values.get(column).copied().unwrap_or_default()
    }

    /// Removes the value of a column.
    pub fn clear(&mut self, column: usize) {
        if column < ELEMENT_COLUMNS {
            self.present &= !(1 << column);
        }
    }

    /// The value of a column, as it was set.
    #[must_use]
    pub fn get(&self, column: usize) -> Option<i64> {
        let (bits, element) = (*self.values.get(column)?, ELEMENTS.get(column)?);
        let value = match (element.column_type, element.signed) {
            // Exact for 16 bits.
            #[expect(clippy::cast_possible_truncation, reason = "tenths of at most 65,535")]
            (ColumnType::RealTenths, _) => (f32::from_bits(bits) * TENTHS).round() as i64,
            (_, true) => i64::from(bits.cast_signed()),
            (_, false) => i64::from(bits),
        };
        (self.present & (1 << column) != 0).then_some(value)
    }

    /// Bit n is set if column n has a value.
    #[must_use]
    pub const fn present(&self) -> u32 {
        self.present
    }
}

/// Start and end of a row's `io` object and of its wire bytes in the collection that holds the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    pub(crate) io: Span,
    pub(crate) wire: Span,
}

/// Start and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Batches are bounded far below 4 GiB. Anything past it would be an empty span and an empty `io`.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            _ => Self::default(),
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub(crate) fn range(self) -> std::ops::Range<usize> {
        let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        at(self.start)..at(self.end)
    }
}
