//! The JSON objects of `odograph decode`, written into a line. A million frames a few seconds: numbers are written without
//! the formatting machinery.

use teltonika_codecs::dictionary::{self, ValueKind};
use teltonika_codecs::{AvlData, Datagram, Element, Imei, Message, Record, Rejection, Value};
use time::OffsetDateTime;

/// A refusal as `decode` prints it: the codec's reasons, and `not_hex` with its offset in characters.
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
    fn from(rejection: Rejection) -> Self {
        Self { reason: rejection.reason.as_str(), offset: rejection.offset, detail: rejection.detail }
    }
}

/// A line under way. Cleared and filled again, so that it allocates once.
#[derive(Default)]
pub(super) struct Line {
    text: String,
    /// Whether records also carry their elements by name.
    pub(super) named: bool,
    ids: Vec<u16>,
}

impl Line {
    pub(super) fn clear(&mut self) {
        self.text.clear();
    }

    pub(super) fn end(&mut self) {
        self.text.push('\n');
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    pub(super) fn ping(&mut self) {
        self.put(r#"{"kind":"ping"}"#);
    }

    pub(super) fn login(&mut self, imei: Imei) {
        self.put(r#"{"kind":"login","imei":""#);
        self.imei(imei);
        self.put("\"}");
    }

    pub(super) fn error(&mut self, refusal: &Refusal) {
        self.put(r#"{"kind":"error","reason":""#);
        self.put(refusal.reason);
        self.put(r#"","offset":"#);
        self.number(refusal.offset);
        self.put(r#","detail":""#);
        self.put(refusal.detail);
        self.put("\"}");
    }

    pub(super) fn avl(&mut self, avl: &AvlData<'_>) {
        self.put(r#"{"kind":"avl","codec":""#);
        self.records(avl);
    }

    pub(super) fn datagram(&mut self, datagram: &Datagram<'_>) {
        let Datagram { packet_id, avl_packet_id, imei, avl } = datagram;
        self.put(r#"{"kind":"datagram","packet_id":"#);
        self.number(*packet_id);
        self.put(r#","avl_packet_id":"#);
        self.number(*avl_packet_id);
        self.put(r#","imei":""#);
        self.imei(*imei);
        self.put(r#"","codec":""#);
        self.records(avl);
    }

    pub(super) fn message(&mut self, message: &Message<'_>) {
        let Message { codec, kind, timestamp_s, imei, payload } = *message;
        self.put(r#"{"kind":"message","codec":""#);
        self.put(codec.name());
        self.put(r#"","type":"#);
        self.number(kind);
        self.put(r#","imei":"#);
        match imei {
            Some(imei) => {
                self.put("\"");
                self.imei(imei);
                self.put("\"");
            }
            None => self.put("null"),
        }
        self.put(r#","timestamp":"#);
        self.timestamp(timestamp_s.map(|seconds| i64::from(seconds) * 1000));
        self.put(r#","text":"#);
        match message.text() {
            Some(text) => self.string(text),
            None => self.put("null"),
        }
        self.put(r#","hex":""#);
        self.hex(payload);
        self.put("\"}");
    }

    /// From the codec's name to the end of the object.
    fn records(&mut self, avl: &AvlData<'_>) {
        self.put(avl.codec().name());
        self.put(r#"","records":["#);
        for (at, record) in avl.records().enumerate() {
            self.put(if at > 0 { "," } else { "" });
            self.record(&record);
        }
        self.put("]}");
    }

    fn record(&mut self, record: &Record<'_>) {
        self.put(r#"{"timestamp":"#);
        self.timestamp(record.calendar_ms());
        self.put(r#","timestamp_ms":"#);
        self.number(record.timestamp_ms);
        self.put(r#","priority":"#);
        self.number(record.priority);
        self.put(r#","longitude":"#);
        self.degrees(record.longitude_raw);
        self.put(r#","latitude":"#);
        self.degrees(record.latitude_raw);
        self.put(r#","altitude_m":"#);
        self.number(record.altitude_m);
        self.put(r#","angle_deg":"#);
        self.number(record.angle_deg);
        self.put(r#","satellites":"#);
        self.number(record.satellites);
        self.put(r#","speed_kmh":"#);
        self.number(record.speed_kmh);
        self.put(r#","event_io_id":"#);
        self.number(record.event_io_id);
        self.put(r#","generation_type":"#);
        match record.generation_type {
            Some(number) => self.number(number),
            None => self.put("null"),
        }
        self.put(r#","io":{"#);
        self.each_element(record, |line, element| {
            line.put("\"");
            line.number(element.id);
            line.put("\":");
            line.raw(element.value);
        });
        self.put("}");
        if self.named {
            self.put(r#","named":["#);
            self.each_element(record, Self::named);
            self.put("]");
        }
        self.put("}");
    }

    /// Writes every element, with commas. An id that comes twice never came from a tracker; the last one counts, as in
    /// the store.
    fn each_element(&mut self, record: &Record<'_>, write: impl Fn(&mut Self, Element<'_>)) {
        self.ids.clear();
        self.ids.extend(record.elements().map(|element| element.id));
        self.ids.sort_unstable();
        let repeats = self.ids.windows(2).any(|pair| pair[0] == pair[1]);
        let mut first = true;
        for (at, element) in record.elements().enumerate() {
            if repeats && record.elements().skip(at + 1).any(|later| later.id == element.id) {
                continue;
            }
            self.put(if std::mem::take(&mut first) { "" } else { "," });
            write(self, element);
        }
    }

    /// An element with the dictionary's name and unit, its value signed and scaled.
    fn named(&mut self, element: Element<'_>) {
        let info = dictionary::element(element.id);
        self.put(r#"{"id":"#);
        self.number(element.id);
        self.put(r#","name":"#);
        self.string_or_null(info.map(|info| info.name));
        self.put(r#","value":"#);
        let whole = info.is_none_or(|info| info.multiplier().to_bits() == 1_f64.to_bits());
        match (info.map(|info| (info, info.kind)), element.value) {
            (Some((_, ValueKind::Text)), Value::Bytes(bytes)) if std::str::from_utf8(bytes).is_ok() => {
                self.string(std::str::from_utf8(bytes).unwrap_or_default());
            }
            (Some((_, ValueKind::Signed)), value) if whole && value.signed().is_some() => {
                self.number(value.signed().unwrap_or_default());
            }
            (Some((info, _)), value) if !whole => match info.scaled(value) {
                Some(scaled) => self.put(&scaled.to_string()),
                None => self.raw(value),
            },
            (_, value) => self.raw(value),
        }
        self.put(r#","unit":"#);
        self.string_or_null(info.and_then(|info| info.unit));
        self.put("}");
    }

    /// A value as on the wire: the unsigned integer, or hex.
    fn raw(&mut self, value: Value<'_>) {
        match value {
            Value::U8(value) => self.number(value),
            Value::U16(value) => self.number(value),
            Value::U32(value) => self.number(value),
            Value::U64(value) => self.number(value),
            Value::Bytes(bytes) => {
                self.put("\"");
                self.hex(bytes);
                self.put("\"");
            }
        }
    }

    fn put(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn number(&mut self, number: impl itoa::Integer) {
        self.text.push_str(itoa::Buffer::new().format(number));
    }

    fn imei(&mut self, imei: Imei) {
        self.text.extend(imei.to_ascii().map(char::from));
    }

    /// Wire units as the decimal that they are: what the nearest float would print.
    fn degrees(&mut self, raw: i32) {
        let (whole, mut decimals) = (raw.unsigned_abs() / 10_000_000, raw.unsigned_abs() % 10_000_000);
        self.put(if raw < 0 { "-" } else { "" });
        self.number(whole);
        self.put(".");
        let mut digits = 7;
        while digits > 1 && decimals.is_multiple_of(10) {
            (decimals, digits) = (decimals / 10, digits - 1);
        }
        self.padded(decimals, digits);
    }

    /// A number with leading zeros up to `width` digits.
    fn padded(&mut self, number: u32, width: usize) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(number);
        self.put("0000000".get(..width.saturating_sub(digits.len())).unwrap_or_default());
        self.put(digits);
    }

    /// An ISO 8601 time with milliseconds, or null.
    fn timestamp(&mut self, ms: Option<i64>) {
        let time = ms.and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok());
        let Some(time) = time else { return self.put("null") };
        let (date, clock) = (time.date(), time.time());
        self.put("\"");
        self.padded(date.year().unsigned_abs(), 4);
        for (mark, number) in [
            ("-", u8::from(date.month())),
            ("-", date.day()),
            ("T", clock.hour()),
            (":", clock.minute()),
            (":", clock.second()),
        ] {
            self.put(mark);
            self.padded(number.into(), 2);
        }
        self.put(".");
        self.padded(clock.millisecond().into(), 3);
        self.put("Z\"");
    }

    fn hex(&mut self, bytes: &[u8]) {
        let digit = |nibble: u8| char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'));
        self.text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]));
    }

    fn string_or_null(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.put("null"),
        }
    }

    fn string(&mut self, text: &str) {
        // A string always has a JSON form.
        self.text.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_print_as_the_nearest_float_does() {
        for raw in [0, 1, -1, 10, 252_618_832, -252_618_832, 1_800_000_000, i32::MIN, i32::MAX, 5_000_000] {
            let mut line = Line::default();
            line.degrees(raw);
            let printed: f64 = line.text.parse().unwrap();
            assert_eq!(printed.to_bits(), (f64::from(raw) / 1e7).to_bits(), "{raw} as {}", line.text);
        }
        let mut line = Line::default();
        line.degrees(250_000_000);
        assert_eq!(line.text, "25.0");
    }

    #[test]
    fn times_print_to_the_ends_of_the_calendar() {
        for (ms, text) in [
            (Some(0), "\"1970-01-01T00:00:00.000Z\""),
            (Some(1_560_166_592_007), "\"2019-06-10T11:36:32.007Z\""),
            (Some(253_402_300_799_999), "\"9999-12-31T23:59:59.999Z\""),
            (None, "null"),
        ] {
            let mut line = Line::default();
            line.timestamp(ms);
            assert_eq!(line.text, text);
        }
    }
}
