//! The vendor's examples as TCP frames, and the row that each record must become according to the example itself.

use serde_json::{Map, Value as Json, json};

use crate::tracker::framed;

/// A frame and what it holds.
#[derive(Debug)]
pub struct Example {
    /// Its name in the fixture.
    pub name: String,
    /// The frame as a tracker sends it over TCP.
    pub frame: Vec<u8>,
    /// The codec byte.
    pub codec_id: u64,
    /// The records as the fixture decodes them.
    pub records: Vec<Json>,
}

/// Every valid example with records. Bare arrays and datagrams are put into a TCP frame.
#[must_use]
pub fn with_records() -> Vec<Example> {
    all()
        .into_iter()
        .filter(|example| example["valid"] == true && example["expected"]["records"].is_array())
        .map(|example| {
            let bytes = unhex(example["hex"].as_str().unwrap());
            let frame = match example["transport"].as_str().unwrap() {
                "tcp" => bytes,
                "avl-array" => framed(&bytes),
                "udp" => framed(&bytes[23..]),
                other => panic!("{other}"),
            };
            Example {
                name: example["name"].as_str().unwrap().to_owned(),
                frame,
                codec_id: example["expected"]["codec_id"].as_u64().unwrap(),
                records: example["expected"]["records"].as_array().unwrap().clone(),
            }
        })
        .collect()
}

/// Messages of devices. They are not stored and never answered.
#[must_use]
pub fn messages() -> Vec<Vec<u8>> {
    let is_message = |e: &Json| e["valid"] == true && e["expected"]["payload_hex"].is_string();
    all().iter().filter(|e| is_message(e)).map(|e| unhex(e["hex"].as_str().unwrap())).collect()
}

fn all() -> Vec<Json> {
    serde_json::from_str(include_str!("../../fixtures/vendor-examples.json")).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The row of a record: every column of the contract except `fingerprint` and `received_at`. Booleans are 0 and 1.
#[must_use]
pub fn row(imei: u64, codec_id: u64, record: &Json) -> Map<String, Json> {
    let mut row = Map::new();
    for (column, key) in [
        ("longitude", "longitude"),
        ("latitude", "latitude"),
        ("altitude_m", "altitude_m"),
        ("angle_deg", "angle_deg"),
        ("speed_kmh", "speed_kmh"),
        ("satellites", "satellites"),
        ("priority", "priority"),
        ("event_io_id", "event_io_id"),
        ("ts_ms", "timestamp_ms"),
    ] {
        row.insert(column.into(), record[key].clone());
    }
    let zero = record["longitude_raw"] == 0 && record["latitude_raw"] == 0;
    row.insert("imei".into(), json!(imei));
    row.insert("codec".into(), json!(codec_id));
    row.insert("generation_type".into(), record.get("generation_type").cloned().unwrap_or(Json::Null));
    row.insert("valid".into(), json!(u8::from(record["satellites"].as_u64().unwrap() > 0 && !zero)));
    row.insert("faulty".into(), json!(0));
    for (_, column, _) in TYPED {
        row.insert(column.into(), Json::Null);
    }
    let mut io = Map::new();
    for element in record["io"].as_array().unwrap() {
        let (id, raw) = (element["id"].as_u64().unwrap(), element["raw"].as_str().unwrap());
        let typed = TYPED.iter().find(|(typed, _, width)| *typed == id && raw.len() == width * 2);
        let number = element["value"].as_u64();
        match (typed, number) {
            (Some((181 | 182, column, _)), Some(tenths)) => {
                #[expect(clippy::cast_precision_loss, reason = "two bytes")]
                row.insert((*column).into(), json!(tenths as f64 / 10.0));
            }
            (Some((17..=19, column, _)), Some(bits)) => {
                row.insert((*column).into(), json!(u16::try_from(bits).unwrap().cast_signed()));
            }
            (Some((_, column, _)), Some(value)) => {
                row.insert((*column).into(), json!(value));
            }
            (_, Some(value)) => {
                io.insert(id.to_string(), json!(value));
            }
            (_, None) => {
                io.insert(id.to_string(), json!(raw));
            }
        }
    }
    row.insert("io".into(), if io.is_empty() { Json::Null } else { Json::Object(io) });
    row
}

/// Typed elements as documented: id, column, bytes on the wire. A copy on purpose, because the service's own table is
/// under test.
pub const TYPED: [(u64, &str, usize); 26] = [
    (239, "ignition", 1),
    (240, "movement", 1),
    (303, "instant_movement", 1),
    (1, "digital_input_1", 1),
    (2, "digital_input_2", 1),
    (179, "digital_output_1", 1),
    (9, "analog_input_1_mv", 2),
    (66, "external_voltage_mv", 2),
    (67, "battery_voltage_mv", 2),
    (68, "battery_current_ma", 2),
    (113, "battery_level_pct", 1),
    (16, "total_odometer_m", 4),
    (199, "trip_odometer_m", 4),
    (24, "io_speed_kmh", 2),
    (21, "gsm_signal", 1),
    (241, "gsm_operator", 4),
    (205, "gsm_cell_id", 2),
    (206, "gsm_area_code", 2),
    (69, "gnss_status", 1),
    (181, "pdop", 2),
    (182, "hdop", 2),
    (80, "data_mode", 1),
    (200, "sleep_mode", 1),
    (17, "axis_x_mg", 2),
    (18, "axis_y_mg", 2),
    (19, "axis_z_mg", 2),
];
