//! One decoded record becomes one row: typed columns by the element table, everything else raw in `io`.

use std::fmt::Write as _;

use teltonika_codecs::{AvlCodec, Element, Imei, Record, Rejection, Value};

use crate::checkpoint::Position;
use crate::store::{ELEMENTS, Row, Spans, TypedElements, column_of};

/// Builds rows. Keeps a table over all element ids, so that ids that come twice are seen without a search.
pub struct RowBuilder {
    /// By element id: the number of the record in which it was last seen.
    seen_in: Vec<u32>,
    record: u32,
    /// Whether an id came twice in the last record.
    repeats: bool,
}

impl Default for RowBuilder {
    fn default() -> Self {
        Self { seen_in: vec![0; usize::from(u16::MAX) + 1], record: 0, repeats: false }
    }
}

impl RowBuilder {
    /// The row of a record, without its `io` object.
    pub fn row(&mut self, imei: Imei, received_at_us: i64, codec: AvlCodec, record: &Record<'_>) -> Row {
        let elements =
            if self.ids_repeat(record) { typed(last_of_each(record).into_iter()) } else { typed(record.elements()) };
        Row {
            imei,
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
            elements,
            frame: Position::default(),
            record_index: 0,
            spans: Spans::default(),
        }
    }

    /// Writes what has no column as a JSON object: `{"id": unsigned integer | "hex"}`; nothing where there is nothing. For the
    /// record of which [`RowBuilder::row`] was made last.
    pub fn write_io(&self, record: &Record<'_>, text: &mut String) {
        if self.repeats {
            write_io(last_of_each(record).into_iter(), text);
        } else {
            write_io(record.elements(), text);
        }
    }

    fn ids_repeat(&mut self, record: &Record<'_>) -> bool {
        self.record = self.record.wrapping_add(1);
        if self.record == 0 {
            self.seen_in.fill(0);
            self.record = 1;
        }
        self.repeats = record.elements().any(|element| {
            self.seen_in
                .get_mut(usize::from(element.id))
                .is_some_and(|seen| std::mem::replace(seen, self.record) == self.record)
        });
        self.repeats
    }
}

/// Ids that come twice were never seen from a tracker; the last one counts (section 2.2).
fn last_of_each<'a>(record: &Record<'a>) -> Vec<Element<'a>> {
    let mut elements: Vec<Element<'_>> = record.elements().collect();
    elements.reverse();
    elements.sort_by_key(|element| element.id);
    elements.dedup_by_key(|element| element.id);
    elements
}

/// A frame that is not what the session accepted: a fault of this program.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum NotAsAccepted {
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
