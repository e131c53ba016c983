//! The vendor's examples as this crate's tests use them.

#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::Value as Json;
use teltonika_codecs::{AvlData, Value};

/// Every vendor example.
pub fn examples() -> Vec<Json> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vendor-examples.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The example of this name.
pub fn example(name: &str) -> Json {
    examples().into_iter().find(|example| example["name"] == name).unwrap()
}

/// The bytes of an example.
pub fn bytes(example: &Json) -> Vec<u8> {
    unhex(example["hex"].as_str().unwrap())
}

pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares every field of every record with what the example says.
pub fn assert_records(avl: &AvlData<'_>, expected: &Json, name: &str) {
    assert_eq!(u64::from(avl.codec().id()), expected["codec_id"].as_u64().unwrap(), "{name}");
    assert_eq!(u64::from(avl.count()), expected["record_count_1"].as_u64().unwrap(), "{name}");
    let records = expected["records"].as_array().unwrap();
    assert_eq!(avl.records().count(), records.len(), "{name}");
    for (record, expected) in avl.records().zip(records) {
        let number = |key: &str| expected[key].as_i64().unwrap();
        assert_eq!(record.timestamp_ms, expected["timestamp_ms"].as_u64().unwrap(), "{name}");
        assert_eq!(i64::from(record.priority), number("priority"), "{name}");
        assert_eq!(i64::from(record.longitude_raw), number("longitude_raw"), "{name}");
        assert_eq!(i64::from(record.latitude_raw), number("latitude_raw"), "{name}");
        assert_eq!(Json::from(record.longitude()), expected["longitude"], "{name}");
        assert_eq!(Json::from(record.latitude()), expected["latitude"], "{name}");
        assert_eq!(i64::from(record.altitude_m), number("altitude_m"), "{name}");
        assert_eq!(i64::from(record.angle_deg), number("angle_deg"), "{name}");
        assert_eq!(i64::from(record.satellites), number("satellites"), "{name}");
        assert_eq!(i64::from(record.speed_kmh), number("speed_kmh"), "{name}");
        assert_eq!(i64::from(record.event_io_id), number("event_io_id"), "{name}");
        assert_eq!(i64::from(record.announced_elements), number("io_total"), "{name}");
        assert_eq!(record.generation_type.map(u64::from), expected["generation_type"].as_u64(), "{name}");
        if let Some(length) = expected["record_bytes"].as_u64() {
            assert_eq!(record.wire().len() as u64, length, "{name}");
        }
        let elements: Vec<_> = record.elements().collect();
        let io = expected["io"].as_array().unwrap();
        assert_eq!(elements.len(), io.len(), "{name}");
        for (element, expected) in elements.iter().zip(io) {
            assert_eq!(u64::from(element.id), expected["id"].as_u64().unwrap(), "{name}");
            assert_eq!(
                element.value.width() as u64,
                expected["width"].as_u64().unwrap_or(element.value.width() as u64)
            );
            let raw = match element.value {
                Value::U8(value) => hex(&value.to_be_bytes()),
                Value::U16(value) => hex(&value.to_be_bytes()),
                Value::U32(value) => hex(&value.to_be_bytes()),
                Value::U64(value) => hex(&value.to_be_bytes()),
                Value::Bytes(bytes) => hex(bytes),
            };
            assert_eq!(raw, expected["raw"].as_str().unwrap(), "{name} element {}", element.id);
        }
    }
}
