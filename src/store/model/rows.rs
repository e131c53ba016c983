//! A collection of rows that keeps their parts of variable length apart. It is cleared and filled again, so that it
//! allocates once.

use std::collections::HashSet;

use super::row::{Key, Row, Span, Spans};

/// Rows, their `io` objects and their bytes on the wire.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    list: Vec<Row>,
    order: Vec<(Key, u32)>,
    io: String,
    wire: Vec<u8>,
    present: u32,
    has_generation_type: bool,
}

impl Rows {
    /// The rows, in order of arrival.
    #[must_use]
    pub fn as_slice(&self) -> &[Row] {
        &self.list
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a row with its bytes on the wire, and with the `io` object that `write_io` appends (nothing for NULL).
    #[inline]
    pub fn push(&mut self, row: &Row, wire: &[u8], write_io: impl FnOnce(&mut String)) {
        let (io_start, wire_start) = (self.io.len(), self.wire.len());
        write_io(&mut self.io);
        self.wire.extend_from_slice(wire);
        let io = Span::new(io_start, self.io.len());
        let spans = Spans { io, wire: Span::new(wire_start, self.wire.len()) };
        self.present |= row.elements.present();
        self.has_generation_type |= row.generation_type.is_some();
        // 32 bits are enough for a batch in memory.
        self.order.push((row.key(), u32::try_from(self.list.len()).unwrap_or(u32::MAX)));
        self.list.push(Row { spans, ..row.clone() });
    }

    /// Sorts the rows by the table's key. Of copies of a record, the one that came first stays in front.
    pub fn sort(&mut self) {
        self.order.sort_unstable();
    }

    /// The rows in the order of arrival, or of the key after [`Rows::sort`].
    pub fn ordered(&self) -> impl Iterator<Item = &Row> {
        self.whole().order.iter().map(|place| self.at(*place))
    }

    /// The keys, device by device. The rows must be sorted.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &[(Key, u32)]> {
        self.order.chunk_by(|(one, _), (next, _)| one.imei == next.imei)
    }

    /// All rows in that order.
    pub(crate) fn whole(&self) -> RowSlice<'_> {
        RowSlice { rows: self, order: &self.order }
    }

    #[inline]
    fn at(&self, (_, index): (Key, u32)) -> &Row {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.list.get(index).expect("each index was pushed with its row")
    }

    /// The `io` object of one of these rows, as JSON text; `None` for NULL.
    #[must_use]
    pub fn io(&self, row: &Row) -> Option<&str> {
        if row.spans.io.is_empty() { None } else { self.io.get(row.spans.io.range()) }
    }

    /// The `io` object of the last row that was added; empty for NULL.
    #[must_use]
    pub fn last_io(&self) -> &str {
        self.list.last().and_then(|row| self.io(row)).unwrap_or_default()
    }

    /// The bytes on the wire of one of these rows.
    #[must_use]
    pub fn wire(&self, row: &Row) -> &[u8] {
        self.wire.get(row.spans.wire.range()).unwrap_or_default()
    }

    /// The typed columns for which at least one row has a value: bit n for column n. A NULL costs as much as a value, so
    /// stores name only these.
    #[must_use]
    pub const fn present(&self) -> u32 {
        self.present
    }

    /// Whether at least one row has a generation type.
    #[must_use]
    pub const fn has_generation_type(&self) -> bool {
        self.has_generation_type
    }

    /// Whether at least one row has an `io` object.
    #[must_use]
    pub fn has_io(&self) -> bool {
        !self.io.is_empty()
    }

    /// Bytes in memory, apart from the rows themselves.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.io.len() + self.wire.len()
    }

    /// A copy without the rows of these keys.
    pub(crate) fn without(&self, keys: &[Key]) -> Self {
        let (mut copy, keys): (_, HashSet<_>) = (self.clone(), keys.iter().collect());
        copy.order.retain(|(key, _)| !keys.contains(key));
        copy
    }

    /// Keeps only the first copy of each record. The rows must be sorted.
    pub(crate) fn dedup(&mut self) {
        self.order.dedup_by_key(|(key, _)| *key);
    }

    /// A copy of the rows of these keys only.
    pub(crate) fn only(&self, keys: &HashSet<Key>) -> Self {
        let mut copy = self.clone();
        copy.order.retain(|(key, _)| keys.contains(key));
        copy
    }

    /// Removes the rows and keeps the memory.
    pub fn clear(&mut self) {
        let Self { list, order, io, wire, present, has_generation_type } = self;
        list.clear();
        order.clear();
        io.clear();
        wire.clear();
        *present = 0;
        *has_generation_type = false;
    }
}

/// Some of a collection's rows, in their order.
#[derive(Clone, Copy)]
pub struct RowSlice<'a> {
    /// The whole collection.
    pub rows: &'a Rows,
    order: &'a [(Key, u32)],
}

impl<'a> RowSlice<'a> {
    /// Number of rows.
    #[must_use]
    pub fn len(self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.order.is_empty()
    }

    /// The row at an index.
    #[must_use]
    pub fn get(self, index: usize) -> Option<&'a Row> {
        Some(self.rows.at(*self.order.get(index)?))
    }

    /// The two halves of what is more than one row, else the only row, if any.
    pub(crate) fn halves(self) -> Result<[Self; 2], Option<&'a Row>> {
        if self.order.len() < 2 {
            return Err(self.get(0));
        }
        let (front, back) = self.order.split_at(self.order.len() / 2);
        Ok([front, back].map(|order| Self { order, ..self }))
    }

    /// In parts of at most so many rows.
    pub(crate) fn chunks(self, rows: usize) -> impl DoubleEndedIterator<Item = Self> {
        self.order.chunks(rows.max(1)).map(move |order| Self { order, ..self })
    }
}
