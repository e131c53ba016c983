//! `Serialize` for what the codecs decode, with the feature `serde`. The form is a contract: the keys of `odograph decode`, in its
//! order.
//!
//! - A record's `io` has one entry an element, in wire order: the decimal id, and the unsigned integer of the wire, also above
//!   2^53. A value of variable length is lower-case hex. Of an id that comes twice, only the last element counts.
//! - `timestamp` is ISO 8601 with milliseconds, or null if no calendar with four-digit years holds it.
//! - `longitude` and `latitude` are degrees: the float nearest to the wire's decimal.
//! - IMEIs are strings of 15 digits, codecs the vendor's names.

use std::fmt;

use serde::ser::{SerializeMap as _, SerializeStruct as _};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use crate::avl::AvlData;
use crate::codec::{AvlCodec, MessageCodec};
use crate::datagram::Datagram;
use crate::element::{Element, Elements, Value};
use crate::imei::Imei;
use crate::message::Message;
use crate::record::Record;
use crate::rejection::{Rejection, RejectionReason};

impl Serialize for Imei {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ascii(&self.to_ascii(), serializer)
    }
}

impl Serialize for AvlCodec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Serialize for MessageCodec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Serialize for RejectionReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for Rejection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { reason, offset, detail } = self;
        let mut fields = serializer.serialize_struct("Rejection", 3)?;
        fields.serialize_field("reason", reason)?;
        fields.serialize_field("offset", offset)?;
        fields.serialize_field("detail", detail)?;
        fields.end()
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::U8(value) => serializer.serialize_u8(*value),
            Self::U16(value) => serializer.serialize_u16(*value),
            Self::U32(value) => serializer.serialize_u32(*value),
            Self::U64(value) => serializer.serialize_u64(*value),
            Self::Bytes(bytes) => serializer.collect_str(&Hex(bytes)),
        }
    }
}

/// An object with the decimal id as its only key.
impl Serialize for Element<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entry = serializer.serialize_map(Some(1))?;
        entry.serialize_entry(&self.id, &self.value)?;
        entry.end()
    }
}

/// One object: each id once, with its last value.
impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_map(None)?;
        self.clone().distinct().try_for_each(|element| entries.serialize_entry(&element.id, &element.value))?;
        entries.end()
    }
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Record", 12)?;
        fields.serialize_field("timestamp", &Timestamp(self.calendar_ms()))?;
        fields.serialize_field("timestamp_ms", &self.timestamp_ms)?;
        fields.serialize_field("priority", &self.priority)?;
        fields.serialize_field("longitude", &self.longitude())?;
        fields.serialize_field("latitude", &self.latitude())?;
        fields.serialize_field("altitude_m", &self.altitude_m)?;
        fields.serialize_field("angle_deg", &self.angle_deg)?;
        fields.serialize_field("satellites", &self.satellites)?;
        fields.serialize_field("speed_kmh", &self.speed_kmh)?;
        fields.serialize_field("event_io_id", &self.event_io_id)?;
        fields.serialize_field("generation_type", &self.generation_type)?;
        fields.serialize_field("io", &self.elements())?;
        fields.end()
    }
}

impl Serialize for AvlData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("AvlData", 2)?;
        fields.serialize_field("codec", &self.codec())?;
        fields.serialize_field("records", &RecordList(self))?;
        fields.end()
    }
}

impl Serialize for Datagram<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { packet_id, avl_packet_id, imei, avl } = self;
        let mut fields = serializer.serialize_struct("Datagram", 5)?;
        fields.serialize_field("packet_id", packet_id)?;
        fields.serialize_field("avl_packet_id", avl_packet_id)?;
        fields.serialize_field("imei", imei)?;
        fields.serialize_field("codec", &avl.codec())?;
        fields.serialize_field("records", &RecordList(avl))?;
        fields.end()
    }
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { codec, kind, timestamp_s, imei, payload } = self;
        let mut fields = serializer.serialize_struct("Message", 6)?;
        fields.serialize_field("codec", codec)?;
        fields.serialize_field("type", kind)?;
        fields.serialize_field("imei", imei)?;
        fields.serialize_field("timestamp", &Timestamp(timestamp_s.map(|seconds| i64::from(seconds) * 1000)))?;
        fields.serialize_field("text", &self.text())?;
        fields.serialize_field("hex", &HexText(payload))?;
        fields.end()
    }
}

struct RecordList<'a>(&'a AvlData<'a>);

impl Serialize for RecordList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.records())
    }
}

/// Milliseconds since 1970 as ISO 8601, or null.
struct Timestamp(Option<i64>);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(ms) = self.0 else { return serializer.serialize_none() };
        let Ok(time) = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)) else {
            return serializer.serialize_none();
        };
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second) = time.to_hms();
        digits(&mut text[0..4], year.unsigned_abs());
        digits(&mut text[5..7], u8::from(month).into());
        digits(&mut text[8..10], day.into());
        digits(&mut text[11..13], hour.into());
        digits(&mut text[14..16], minute.into());
        digits(&mut text[17..19], second.into());
        digits(&mut text[20..23], u32::try_from(ms.rem_euclid(1000)).unwrap_or(0));
        ascii(&text, serializer)
    }
}

/// Writes a number with leading zeros.
fn digits(text: &mut [u8], mut number: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

fn ascii<S: Serializer>(text: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(std::str::from_utf8(text).unwrap_or_default())
}

struct HexText<'a>(&'a [u8]);

impl Serialize for HexText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Hex(self.0))
    }
}

/// Lower-case hex, written in pieces so that it needs no allocation.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        for piece in self.0.chunks(32) {
            let mut text = [0; 64];
            for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(piece) {
                *pair = [digit(byte >> 4), digit(byte & 0xF)];
            }
            f.write_str(std::str::from_utf8(&text[..2 * piece.len()]).unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{self, NewElement, NewRecord, NewValue};
    use crate::envelope::Frame;

    #[test]
    fn of_an_id_that_comes_twice_the_last_value_counts() {
        for repeats in [1, 70] {
            let mut elements: Vec<_> = (0..repeats).map(|id| NewElement { id, value: NewValue::U8(1) }).collect();
            elements.push(NewElement { id: 0, value: NewValue::U16(500) });
            let record = NewRecord { elements, ..NewRecord::default() };
            let bytes = encode::frame(AvlCodec::Codec8E, &[record]).unwrap();
            let Ok(Frame::Avl(avl)) = Frame::open(&bytes) else { panic!("a frame of our own") };
            let json = serde_json::to_string(&avl).unwrap();
            assert!(json.starts_with(r#"{"codec":"8E","records":[{"timestamp":"1970-01-01T00:00:00.000Z","#), "{json}");
            assert_eq!(json.matches("\"0\":").count(), 1, "{json}");
            assert!(json.ends_with("\"0\":500}}]}"), "{json}");
        }
    }

    #[test]
    fn times_reach_to_the_ends_of_the_calendar() {
        for (ms, text) in [
            (Some(0), "\"1970-01-01T00:00:00.000Z\""),
            (Some(1_560_166_592_007), "\"2019-06-10T11:36:32.007Z\""),
            (Some(253_402_300_799_999), "\"9999-12-31T23:59:59.999Z\""),
            (None, "null"),
        ] {
            assert_eq!(serde_json::to_string(&Timestamp(ms)).unwrap(), text);
        }
    }

    #[test]
    fn values_are_unsigned_integers_or_hex() {
        for (value, text) in [
            (Value::U8(255), "255"),
            (Value::U64(u64::MAX), "18446744073709551615"),
            (Value::Bytes(&[]), "\"\""),
            (Value::Bytes(&[0x0A, 0xF0]), "\"0af0\""),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        let long = serde_json::to_string(&Value::Bytes(&[0xCD; 100])).unwrap();
        assert_eq!(long, format!("\"{}\"", "cd".repeat(100)), "in pieces");
    }
}
