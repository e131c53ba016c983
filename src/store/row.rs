//! Rows and batches as every store takes them: plain values in wire units, no text but the `io` object.

use teltonika_codecs::Imei;

use super::columns::ELEMENT_COLUMNS;

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
    /// As sent.
    pub priority: u8,
    /// Codec id on the wire.
    pub codec: u8,
    /// Codec 16 only.
    pub generation_type: Option<u8>,
    /// The element that caused the record, 0 for none.
    pub event_io_id: u16,
    /// Whether the record carries a position (a fix, in range).
    pub valid: bool,
    /// Whether a marshal declared it faulty.
    pub faulty: bool,
    /// Receive time, microseconds since 1970-01-01 UTC.
    pub received_at_us: i64,
    /// Values of the typed columns.
    pub elements: TypedElements,
    /// Where the row's `io` object stands in [`Batch::io`]; empty for NULL.
    pub io: IoSpan,
}

/// Earliest device time that every store can hold: a tracker sends unsigned milliseconds.
pub const MIN_TS_MS: i64 = 0;
/// Latest device time that every store and calendar can hold: 9999-12-31T23:59:59.999Z.
pub const MAX_TS_MS: i64 = 253_402_300_799_999;

/// Values of the typed element columns of one row, as [`super::columns::ElementColumn::fit`] gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypedElements {
    present: u32,
    values: [i64; ELEMENT_COLUMNS],
}

impl TypedElements {
    /// Sets the value of a column; a second one replaces the first.
    pub fn set(&mut self, column: usize, value: i64) {
        if let Some(place) = self.values.get_mut(column) {
            *place = value;
            self.present |= 1 << column;
        }
    }

    /// Removes the value of a column.
    pub fn clear(&mut self, column: usize) {
        if column < ELEMENT_COLUMNS {
            self.present &= !(1 << column);
        }
    }

    /// The value of a column.
    #[must_use]
    pub fn get(&self, column: usize) -> Option<i64> {
        let value = self.values.get(column)?;
        (self.present & (1 << column) != 0).then_some(*value)
    }

    /// Bit n is set where column n has a value.
    #[must_use]
    pub const fn present(&self) -> u32 {
        self.present
    }
}

/// Start and end of a row's `io` object in the batch's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoSpan {
    start: u32,
    end: u32,
}

/// Rows that are committed together. Cleared and filled again, so a batch allocates once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
    io: String,
    present: u32,
}

impl Batch {
    /// The rows, in order of arrival.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The `io` object of one of this batch's rows as JSON text; `None` for NULL.
    #[must_use]
    pub fn io(&self, row: &Row) -> Option<&str> {
        let text = self.io.get(usize::try_from(row.io.start).ok()?..usize::try_from(row.io.end).ok()?)?;
        (!text.is_empty()).then_some(text)
    }

    /// Typed columns that at least one row has a value for: bit n for column n. A NULL column costs as much as a value,
    /// so stores name only these.
    #[must_use]
    pub const fn present(&self) -> u32 {
        self.present
    }

    /// Whether at least one row has an `io` object.
    #[must_use]
    pub fn has_io(&self) -> bool {
        !self.io.is_empty()
    }

    /// Adds a row whose `io` object is what `write_io` appends (nothing for NULL).
    pub fn push(&mut self, mut row: Row, write_io: impl FnOnce(&mut String)) {
        let start = self.io.len();
        write_io(&mut self.io);
        // Frames are bounded by 16 KiB and batches by 50,000 rows; text past 4 GiB cannot come together in memory.
        let at = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        row.io = IoSpan { start: at(start), end: at(self.io.len()) };
        self.present |= row.elements.present();
        self.rows.push(row);
    }

    /// Forgets the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.io.clear();
        self.present = 0;
    }
}
