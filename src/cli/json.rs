//! The JSON objects of `odograph decode`, written into a line.

use std::fmt::Write as _;

use teltonika_codecs::{AvlData, Datagram, Imei, Message, Record, Rejection, Value};
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

// Writing to a string does not fail, so the results of `write!` are dropped throughout.

pub(super) fn ping(line: &mut String) {
    line.push_str(r#"{"kind":"ping"}"#);
}

pub(super) fn login(imei: Imei, line: &mut String) {
    let _ = write!(line, r#"{{"kind":"login","imei":"{imei}"}}"#);
}

pub(super) fn error(refusal: &Refusal, line: &mut String) {
    let Refusal { reason, offset, detail } = refusal;
    let _ = write!(line, r#"{{"kind":"error","reason":"{reason}","offset":{offset},"detail":"{detail}"}}"#);
}

pub(super) fn avl(avl: &AvlData<'_>, line: &mut String) {
    let _ = write!(line, r#"{{"kind":"avl","codec":"{}","records":["#, avl.codec().name());
    records(avl, line);
    line.push_str("]}");
}

pub(super) fn datagram(datagram: &Datagram<'_>, line: &mut String) {
    let Datagram { packet_id, avl_packet_id, imei, avl } = datagram;
    let _ = write!(
        line,
        r#"{{"kind":"datagram","packet_id":{packet_id},"avl_packet_id":{avl_packet_id},"imei":"{imei}","codec":"{}","records":["#,
        avl.codec().name()
    );
    records(avl, line);
    line.push_str("]}");
}

pub(super) fn message(message: &Message<'_>, line: &mut String) {
    let Message { codec, kind, timestamp_s, imei, payload } = *message;
    let _ = write!(line, r#"{{"kind":"message","codec":"{}","type":{kind},"imei":"#, codec.name());
    match imei {
        Some(imei) => drop(write!(line, "\"{imei}\"")),
        None => line.push_str("null"),
    }
    line.push_str(r#","timestamp":"#);
    timestamp(timestamp_s.map(|seconds| i64::from(seconds) * 1000), line);
    line.push_str(r#","text":"#);
    match message.text() {
        Some(text) => string(text, line),
        None => line.push_str("null"),
    }
    line.push_str(r#","hex":""#);
    hex(payload, line);
    line.push_str("\"}");
}

fn records(avl: &AvlData<'_>, line: &mut String) {
    for (at, record) in avl.records().enumerate() {
        if at > 0 {
            line.push(',');
        }
        self::record(&record, line);
    }
}

fn record(record: &Record<'_>, line: &mut String) {
    line.push_str(r#"{"timestamp":"#);
    timestamp(record.calendar_ms(), line);
    let _ = write!(
        line,
        r#","timestamp_ms":{},"priority":{},"longitude":{:?},"latitude":{:?},"altitude_m":{},"angle_deg":{},"satellites":{},"speed_kmh":{},"event_io_id":{},"generation_type":"#,
        record.timestamp_ms,
        record.priority,
        record.longitude(),
        record.latitude(),
        record.altitude_m,
        record.angle_deg,
        record.satellites,
        record.speed_kmh,
        record.event_io_id,
    );
    match record.generation_type {
        Some(number) => drop(write!(line, "{number}")),
        None => line.push_str("null"),
    }
    line.push_str(r#","io":{"#);
    // An id that comes twice never came from a tracker; the last one counts, as in the store.
    let elements: Vec<_> = record.elements().collect();
    let mut ids: Vec<u16> = elements.iter().map(|element| element.id).collect();
    ids.sort_unstable();
    let repeats = ids.windows(2).any(|pair| pair[0] == pair[1]);
    let mut first = true;
    for (at, element) in elements.iter().enumerate() {
        if repeats && elements.iter().skip(at + 1).any(|later| later.id == element.id) {
            continue;
        }
        if !std::mem::take(&mut first) {
            line.push(',');
        }
        let _ = write!(line, "\"{}\":", element.id);
        match element.value {
            Value::Bytes(bytes) => {
                line.push('"');
                hex(bytes, line);
                line.push('"');
            }
            value => drop(write!(line, "{}", value.unsigned().unwrap_or_default())),
        }
    }
    line.push_str("}}");
}

/// An ISO 8601 time with milliseconds, or null.
fn timestamp(ms: Option<i64>, line: &mut String) {
    let time = ms.and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok());
    let _ = match time {
        None => write!(line, "null"),
        Some(time) => {
            let (date, clock) = (time.date(), time.time());
            write!(
                line,
                r#""{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z""#,
                date.year(),
                u8::from(date.month()),
                date.day(),
                clock.hour(),
                clock.minute(),
                clock.second(),
                clock.millisecond()
            )
        }
    };
}

fn hex(bytes: &[u8], line: &mut String) {
    for byte in bytes {
        let _ = write!(line, "{byte:02x}");
    }
}

fn string(text: &str, line: &mut String) {
    // A string always has a JSON form.
    line.push_str(&serde_json::to_string(text).unwrap_or_default());
}
