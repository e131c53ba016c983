//! One decoded record becomes one row: typed columns by the element table, everything else raw in `io`.

use std::fmt::Write as _;

use teltonika_codecs::{AvlCodec, AvlData, Element, Imei, Record, Rejection, Value};

use crate::receipt::Submission;
use crate::store::{Batch, ELEMENTS, IoSpan, Row, TypedElements, column_of};

/// Builds rows. Keeps a table over all element ids, so that ids that come twice are seen without a search.
pub struct RowBuilder {
    /// By element id: the number of the record in which it was last seen.
    seen_in: Vec<u32>,
    record: u32,
}

impl Default for RowBuilder {
    fn default() -> Self {
        Self { seen_in: vec![0; usize::from(u16::MAX) + 1], record: 0 }
    }
}

impl RowBuilder {
    /// Adds the rows of a frame to the batch: all or none.
    ///
    /// # Errors
    /// When the data field cannot be opened, or does not hold as many records as the receipt will say: the session
    /// checked both before.
    pub(crate) fn rows(&mut self, frame: &Submission, batch: &mut Batch) -> Result<(), NotAsAccepted> {
        let avl = AvlData::open(&frame.data)?;
        if avl.records().count() != usize::from(frame.records()) {
            return Err(NotAsAccepted::Count);
        }
        for record in avl.records() {
            self.row(frame.imei, frame.received_at_us, avl.codec(), &record, batch);
        }
        Ok(())
    }

    /// Adds one row.
    pub fn row(&mut self, imei: Imei, received_at_us: i64, codec: AvlCodec, record: &Record<'_>, batch: &mut Batch) {
        let mut row = Row {
            imei,
            // The session refuses frames whose times no calendar holds.
            ts_ms: record.calendar_ms().unwrap_or(crate::store::MAX_TS_MS),
            fingerprint: crc32fast::hash(record.wire()).cast_signed(),
            longitude: record.longitude(),
            latitude: record.latitude(),
            altitude_m: record.altitude_m,
            angle_deg: record.angle_deg,
            speed_kmh: record.speed_kmh,
            satellites: record.satellites,
            priority: record.priority,
            codec: codec.id(),
            generation_type: record.generation_type,
            event_io_id: record.event_io_id,
            valid: record.has_position(),
            faulty: false,
            received_at_us,
            elements: TypedElements::default(),
            io: IoSpan::default(),
        };
        if self.ids_repeat(record) {
            // Never seen from a tracker; the last one counts (section 2.2).
            let mut elements: Vec<Element<'_>> = record.elements().collect();
            elements.reverse();
            elements.sort_by_key(|element| element.id);
            elements.dedup_by_key(|element| element.id);
            let typed = typed(elements.iter().copied());
            row.elements = typed;
            batch.push(row, |text| write_io(elements.into_iter(), text));
        } else {
            row.elements = typed(record.elements());
            batch.push(row, |text| write_io(record.elements(), text));
        }
    }

    fn ids_repeat(&mut self, record: &Record<'_>) -> bool {
        self.record = self.record.wrapping_add(1);
        if self.record == 0 {
            self.seen_in.fill(0);
            self.record = 1;
        }
        record.elements().any(|element| {
            self.seen_in
                .get_mut(usize::from(element.id))
                .is_some_and(|seen| std::mem::replace(seen, self.record) == self.record)
        })
    }
}

/// A frame that is not what the session accepted: a fault of this program.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum NotAsAccepted {
    /// The data field is refused.
    #[error("the data field cannot be opened")]
    Refused(#[from] Rejection),
    /// It holds another number of records.
    #[error("the number of records is not the accepted one")]
    Count,
}

fn fitting(element: Element<'_>) -> Option<(usize, i64)> {
    let column = column_of(element.id)?;
    Some((column, ELEMENTS.get(column)?.fit(element.value)?))
}

fn typed<'a>(elements: impl Iterator<Item = Element<'a>>) -> TypedElements {
    let mut typed = TypedElements::default();
    for (column, value) in elements.filter_map(fitting) {
        typed.set(column, value);
    }
    typed
}

/// Writes what has no column as a JSON object: `{"id": unsigned integer | "hex"}`; nothing where there is nothing.
fn write_io<'a>(elements: impl Iterator<Item = Element<'a>>, text: &mut String) {
    let mut open = false;
    for Element { id, value } in elements.filter(|element| fitting(*element).is_none()) {
        text.push(if open { ',' } else { '{' });
        open = true;
        // Writing to a string does not fail.
        let _ = match (value, value.unsigned()) {
            (Value::Bytes(bytes), _) => write_hex(id, bytes, text),
            (_, number) => write!(text, "\"{id}\":{}", number.unwrap_or_default()),
        };
    }
    if open {
        text.push('}');
    }
}

fn write_hex(id: u16, bytes: &[u8], text: &mut String) -> std::fmt::Result {
    write!(text, "\"{id}\":\"")?;
    for byte in bytes {
        write!(text, "{byte:02x}")?;
    }
    text.push('"');
    Ok(())
}
