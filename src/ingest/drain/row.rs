//! One decoded record becomes one row: typed columns by the element table, everything else raw in `io`.

use std::fmt::Write as _;

use teltonika_codecs::{AvlCodec, Element, Imei, Record, Rejection, Value};

use crate::store::{ELEMENTS, Row, Spans, TypedElements, column_of};
use odograph_journal::Position;

/// A row, and what its record holds beside the typed columns.
pub struct BuiltRow {
    /// The row.
    pub row: Row,
    odd: Odd,
}

/// Elements that go to `io`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Odd {
    None,
    Some,
    /// An id comes twice, or may do so: looked at with care, as it was never seen from a tracker.
    Repeated,
}

impl BuiltRow {
    /// The row of a record.
    #[must_use]
    pub fn new(imei: Imei, received_at_us: i64, codec: AvlCodec, record: &Record<'_>) -> Self {
        let (elements, odd) = typed(record);
        let row = Row {
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
        };
        Self { row, odd }
    }

    /// Writes what has no column as a JSON object: `{"id": unsigned integer | "hex"}`; nothing where there is nothing. For the
    /// record that the row was made of.
    pub fn write_io(&self, record: &Record<'_>, text: &mut String) {
        match self.odd {
            Odd::None => {}
            Odd::Some => write_io(record.elements(), text),
            Odd::Repeated => write_io(last_of_each(record).into_iter(), text),
        }
    }
}

/// The typed columns, in one walk over the elements.
#[inline]
fn typed(record: &Record<'_>) -> (TypedElements, Odd) {
    let mut typed = TypedElements::default();
    let (mut met, mut met_odd, mut odd) = (0_u32, 0_u64, Odd::None);
    record.elements().for_each(|element| {
        if let Some(column) = column_of(element.id) {
            let bit = 1 << column;
            if met & bit != 0 {
                odd = Odd::Repeated;
            }
            met |= bit;
            if typed.put(column, element.value) {
                return;
            }
        } else {
            // Two ids can share a bit: then both are looked at with care.
            let bit = 1 << (element.id & 63);
            if met_odd & bit != 0 {
                odd = Odd::Repeated;
            }
            met_odd |= bit;
        }
        if odd == Odd::None {
            odd = Odd::Some;
        }
    });
    if odd == Odd::Repeated {
        typed = TypedElements::default();
        for element in last_of_each(record) {
            if let Some(column) = column_of(element.id) {
                typed.put(column, element.value);
            }
        }
    }
    (typed, odd)
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

fn has_no_column(element: &Element<'_>) -> bool {
    let column = column_of(element.id).and_then(|column| ELEMENTS.get(column));
    column.and_then(|column| column.fit(element.value)).is_none()
}

fn write_io<'a>(elements: impl Iterator<Item = Element<'a>>, text: &mut String) {
    let mut open = false;
    for Element { id, value } in elements.filter(has_no_column) {
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
