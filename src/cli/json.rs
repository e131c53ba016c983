//! The JSON objects of `odograph decode`: what the codecs serialise, with a `kind`, and on request with the elements by name.

use std::io;

use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};
use serde_json::ser::{CompactFormatter, Formatter};
use serde_json::value::RawValue;
use teltonika_codecs::dictionary::{self, Reading};
use teltonika_codecs::{AvlCodec, AvlData, Datagram, Element, Imei, Message, Record, Rejection, Value};

/// One item of the input.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum DecodedItem<'a> {
    Ping,
    Login {
        imei: Imei,
    },
    Avl(AvlData<'a>),
    Message(Message<'a>),
    Datagram(Datagram<'a>),
    Error(Refusal),
    #[serde(rename = "avl")]
    NamedAvl(NamedAvl<'a>),
    #[serde(rename = "datagram")]
    NamedDatagram(NamedDatagram<'a>),
}

impl DecodedItem<'_> {
    /// The same item; its records also list their elements by name.
    pub(super) fn with_names(self) -> Self {
        match self {
            Self::Avl(avl) => Self::NamedAvl(NamedAvl { codec: avl.codec(), records: NamedRecords(avl) }),
            Self::Datagram(Datagram { packet_id, avl_packet_id, imei, avl }) => {
                let (codec, records) = (avl.codec(), NamedRecords(avl));
                Self::NamedDatagram(NamedDatagram { packet_id, avl_packet_id, imei, codec, records })
            }
            other => other,
        }
    }

    /// Appends the object.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut serializer = serde_json::Serializer::with_formatter(out, DecimalFormatter);
        self.serialize(&mut serializer).expect("a vector takes every byte, and all keys are strings or numbers");
    }
}

/// A refused item: the codec's reasons, and `not_hex` with its offset in characters.
#[derive(Serialize)]
pub(super) struct Refusal {
    reason: &'static str,
    offset: usize,
    detail: &'static str,
}

impl Refusal {
    pub(super) fn not_hex(at: usize) -> Self {
        Self { reason: "not_hex", offset: at, detail: "two hexadecimal digits a byte" }
    }
}

impl From<Rejection> for Refusal {
    fn from(Rejection { reason, offset, detail }: Rejection) -> Self {
        Self { reason: reason.as_str(), offset, detail }
    }
}

/// As [`AvlData`] is serialised, with names.
#[derive(Serialize)]
pub(super) struct NamedAvl<'a> {
    codec: AvlCodec,
    records: NamedRecords<'a>,
}

/// As [`Datagram`] is serialised, with names.
#[derive(Serialize)]
pub(super) struct NamedDatagram<'a> {
    packet_id: u16,
    avl_packet_id: u8,
    imei: Imei,
    codec: AvlCodec,
    records: NamedRecords<'a>,
}

struct NamedRecords<'a>(AvlData<'a>);

impl Serialize for NamedRecords<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.records().map(|record| NamedRecord { record, named: NamedElements(record) }))
    }
}

#[derive(Serialize)]
struct NamedRecord<'a> {
    #[serde(flatten)]
    record: Record<'a>,
    named: NamedElements<'a>,
}

struct NamedElements<'a>(Record<'a>);

impl Serialize for NamedElements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        self.0.elements().distinct().try_for_each(|element| list.serialize_element(&NamedElement::of(element)))?;
        list.end()
    }
}

/// An element with the dictionary's name and unit, and what its value says.
#[derive(Serialize)]
struct NamedElement<'a> {
    id: u16,
    name: Option<&'static str>,
    value: NamedValue<'a>,
    unit: Option<&'static str>,
    /// Why there is no value, and the raw number.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<i128>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum NamedValue<'a> {
    None,
    Text(&'a str),
    /// An identifier, or a number of which readers of JSON would lose digits.
    Digits(String),
    /// A decimal without exponent, and without a fraction if it is whole.
    Number(Box<RawValue>),
    Raw(Value<'a>),
}

impl<'a> NamedElement<'a> {
    fn of(Element { id, value }: Element<'a>) -> Self {
        let info = dictionary::element(id);
        let (mut fault, mut raw) = (None, None);
        let value = match info.map_or(Reading::Raw, |info| info.reading(value)) {
            Reading::Number(number) if number.is_beyond_floats() => NamedValue::Digits(number.to_string()),
            // Digits and a point are always JSON.
            Reading::Number(number) => {
                RawValue::from_string(number.to_string()).map_or(NamedValue::Raw(value), NamedValue::Number)
            }
            Reading::Id(digits) => NamedValue::Digits(digits),
            Reading::Text(text) => NamedValue::Text(text),
            Reading::Fault(name, number) => {
                (fault, raw) = (Some(name), Some(number));
                NamedValue::None
            }
            Reading::Raw => match value.unsigned() {
                Some(number) if number > 1 << 53 => NamedValue::Digits(number.to_string()),
                _ => NamedValue::Raw(value),
            },
        };
        Self { id, name: info.map(|info| info.name), value, unit: info.and_then(|info| info.unit), fault, raw }
    }
}

/// Writes no exponents: degrees near zero are decimals like all others.
struct DecimalFormatter;

impl Formatter for DecimalFormatter {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value == 0.0 || value.abs() >= SMALLEST_WITHOUT_EXPONENT {
            CompactFormatter.write_f64(writer, value)
        } else {
            write!(writer, "{value}")
        }
    }
}

/// `serde_json` writes smaller numbers with an exponent. Coordinates are far below those that are too large.
const SMALLEST_WITHOUT_EXPONENT: f64 = 1e-5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_are_decimals_without_exponent() {
        for raw in
            [0, 1, -1, 10, 99, 100, -101, 252_618_832, -252_618_832, 1_800_000_000, i32::MIN, i32::MAX, 5_000_000]
        {
            let mut line = Vec::new();
            let degrees = f64::from(raw) / 1e7;
            degrees.serialize(&mut serde_json::Serializer::with_formatter(&mut line, DecimalFormatter)).unwrap();
            let text = String::from_utf8(line).unwrap();
            let (whole, decimals) = (raw.unsigned_abs() / 10_000_000, raw.unsigned_abs() % 10_000_000);
            let digits = format!("{decimals:07}");
            let decimals = digits.trim_end_matches('0');
            let sign = if raw < 0 { "-" } else { "" };
            assert_eq!(text, format!("{sign}{whole}.{}", if decimals.is_empty() { "0" } else { decimals }), "{raw}");
        }
    }
}
