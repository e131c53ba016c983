//! One decoded record becomes one row: typed columns by the element table, everything else raw in `io`.

use std::fmt::Write as _;
use std::sync::LazyLock;

use teltonika_codecs::dictionary::{self, ValueKind};
use teltonika_codecs::{AvlCodec, Element, Imei, Record, Rejection, Value};

use crate::hex;
use crate::store::{ELEMENTS, Row, Spans, TypedElements, column_of};
use odograph_journal::Position;

/// A row, and whether its record holds elements without a typed column.
pub struct BuiltRow {
    /// The row.
    pub row: Row,
    other: OtherElements,
}

/// Elements that go to `io`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OtherElements {
    None,
    Some,
    /// An id occurs twice, or may: handled slowly, because no tracker was seen to do it.
    Repeated,
}

impl BuiltRow {
    /// The row of a record.
    #[must_use]
    pub fn new(imei: Imei, received_at_us: i64, codec: AvlCodec, record: &Record<'_>) -> Self {
        let (elements, other) = typed(record);
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
        Self { row, other }
    }

    /// Writes elements without a column as a JSON object, `{"id": unsigned integer | [signed integer, width] | "hex"}`, or nothing if there are none.
    /// `record` must be the one that the row was made of.
    pub fn write_io(&self, record: &Record<'_>, text: &mut String) {
        match self.other {
            OtherElements::None => {}
            OtherElements::Some => write_io(record.elements(), text),
            OtherElements::Repeated => write_io(last_of_each(record).into_iter(), text),
        }
    }
}

/// The typed columns, in one walk over the elements.
#[inline]
fn typed(record: &Record<'_>) -> (TypedElements, OtherElements) {
    let mut typed = TypedElements::default();
    let (mut met, mut met_other, mut other) = (0_u32, 0_u64, OtherElements::None);
    record.elements().for_each(|element| {
        if let Some(column) = column_of(element.id) {
            let bit = 1 << column;
            if met & bit != 0 {
                other = OtherElements::Repeated;
            }
            met |= bit;
            if typed.put(column, element.value) {
                return;
            }
        } else {
            // Two ids can share a bit; both are handled slowly then.
            let bit = 1 << (element.id & 63);
            if met_other & bit != 0 {
                other = OtherElements::Repeated;
            }
            met_other |= bit;
        }
        if other == OtherElements::None {
            other = OtherElements::Some;
        }
    });
    if other == OtherElements::Repeated {
        typed = TypedElements::default();
        for element in last_of_each(record) {
            if let Some(column) = column_of(element.id) {
                typed.put(column, element.value);
            }
        }
    }
    (typed, other)
}

/// The last element of each id counts (protocol section 2.2). No tracker was seen to repeat one.
fn last_of_each<'a>(record: &Record<'a>) -> Vec<Element<'a>> {
    let mut elements: Vec<Element<'_>> = record.elements().collect();
    elements.reverse();
    elements.sort_by_key(|element| element.id);
    elements.dedup_by_key(|element| element.id);
    elements
}

/// A frame differs from what the session accepted: a fault of this program.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum AcceptedFrameError {
    /// The data field is refused.
    #[error("the data field cannot be opened")]
    Refused(#[from] Rejection),
    /// It holds a different number of records.
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
            // In another width than the vendor's, the sign would be lost with the width.
            (_, Some(_)) if is_signed_elsewhere(id, value.width()) => {
                write!(text, "\"{id}\":[{},{}]", value.signed().unwrap_or_default(), value.width())
            }
            (_, number) => write!(text, "\"{id}\":{}", number.unwrap_or_default()),
        };
    }
    if open {
        text.push('}');
    }
}

/// Whether the element is signed, and the vendor names another width.
fn is_signed_elsewhere(id: u16, width: usize) -> bool {
    let vendor = SIGNED_WIDTHS.get(usize::from(id)).copied().unwrap_or_default();
    vendor != 0 && usize::from(vendor) != width
}

/// The vendor's width of signed elements, by id; 0 for all others.
static SIGNED_WIDTHS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut widths = vec![0; dictionary::all().last().map_or(0, |last| usize::from(last.id) + 1)];
    for element in dictionary::all().iter().filter(|element| element.kind == ValueKind::Signed) {
        if let Some(width) = widths.get_mut(usize::from(element.id)) {
            *width = element.vendor_width.unwrap_or(u8::MAX);
        }
    }
    widths
});

fn write_hex(id: u16, bytes: &[u8], text: &mut String) -> std::fmt::Result {
    write!(text, "\"{id}\":\"")?;
    hex::push(text, bytes);
    text.push('"');
    Ok(())
}
