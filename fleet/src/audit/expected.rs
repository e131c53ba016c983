//! The values that a row must hold, from the record sent and the documented columns. Shares no code with the service's row
//! building, on purpose.

use serde_json::Value as Json;
use teltonika_codecs::dictionary::{self, ElementInfo, ValueKind};
use teltonika_codecs::encode::{self, NewRecord, NewValue};

use super::range::signed;
use crate::route::Route;

/// What a row holds, or must hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RowValues {
    /// Microseconds, the finest resolution of a database.
    pub(super) ts_us: i64,
    pub(super) fingerprint: i64,
    pub(super) longitude: Option<f64>,
    pub(super) latitude: Option<f64>,
    /// In the order of [`COLUMNS`].
    pub(super) numbers: [Option<i64>; COLUMNS.len()],
    pub(super) io: Option<Json>,
}

/// The type of a column. Each is compared as an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Boolean,
    Integer,
    /// A fraction: in thousandths, ten times finer than the wire.
    Fraction,
}

/// Every column that a record determines, except key, coordinates and `io`.
pub(super) const COLUMNS: [(&str, ColumnKind); 36] = [
    ("altitude_m", ColumnKind::Integer),
    ("angle_deg", ColumnKind::Integer),
    ("speed_kmh", ColumnKind::Integer),
    ("satellites", ColumnKind::Integer),
    ("priority", ColumnKind::Integer),
    ("codec", ColumnKind::Integer),
    ("generation_type", ColumnKind::Integer),
    ("event_io_id", ColumnKind::Integer),
    ("valid", ColumnKind::Boolean),
    ("faulty", ColumnKind::Boolean),
    ("ignition", ColumnKind::Boolean),
    ("movement", ColumnKind::Boolean),
    ("instant_movement", ColumnKind::Boolean),
    ("digital_input_1", ColumnKind::Boolean),
    ("digital_input_2", ColumnKind::Boolean),
    ("digital_output_1", ColumnKind::Boolean),
    ("analog_input_1_mv", ColumnKind::Integer),
    ("external_voltage_mv", ColumnKind::Integer),
    ("battery_voltage_mv", ColumnKind::Integer),
    ("battery_current_ma", ColumnKind::Integer),
    ("battery_level_pct", ColumnKind::Integer),
    ("total_odometer_m", ColumnKind::Integer),
    ("trip_odometer_m", ColumnKind::Integer),
    ("io_speed_kmh", ColumnKind::Integer),
    ("gsm_signal", ColumnKind::Integer),
    ("gsm_operator", ColumnKind::Integer),
    ("gsm_cell_id", ColumnKind::Integer),
    ("gsm_area_code", ColumnKind::Integer),
    ("gnss_status", ColumnKind::Integer),
    ("pdop", ColumnKind::Fraction),
    ("hdop", ColumnKind::Fraction),
    ("data_mode", ColumnKind::Integer),
    ("sleep_mode", ColumnKind::Integer),
    ("axis_x_mg", ColumnKind::Integer),
    ("axis_y_mg", ColumnKind::Integer),
    ("axis_z_mg", ColumnKind::Integer),
];

impl RowValues {
    /// The row that a record of a route must become.
    pub(super) fn of(route: &Route, record: &NewRecord) -> Self {
        // The pair 0/0, or a record without satellites, is not a position.
        let place = (record.longitude_raw, record.latitude_raw) != (0, 0);
        let mut numbers = [None; COLUMNS.len()];
        let fixed = [
            Some(record.altitude_m.into()),
            Some(record.angle_deg.into()),
            Some(record.speed_kmh.into()),
            Some(record.satellites.into()),
            Some(record.priority.into()),
            Some(route.codec().id().into()),
            None,
            Some(record.event_io_id.into()),
            Some((record.satellites > 0 && place).into()),
            Some(0),
        ];
        numbers[..fixed.len()].copy_from_slice(&fixed);
        let mut io = serde_json::Map::new();
        for element in &record.elements {
            match (column(element.id), &element.value) {
                (None, NewValue::Bytes(bytes)) => {
                    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    io.insert(element.id.to_string(), Json::from(hex));
                }
                (None, value) => {
                    let value = value.as_value();
                    let info = dictionary::element(element.id).filter(|info| info.kind == ValueKind::Signed);
                    let other_width = |info: &ElementInfo| info.vendor_width.map(usize::from) != Some(value.width());
                    let json = match (info.is_some_and(other_width), value.signed()) {
                        (true, Some(signed)) => Json::from(vec![signed, i64::try_from(value.width()).unwrap_or(0)]),
                        _ => Json::from(value.unsigned()),
                    };
                    io.insert(element.id.to_string(), json);
                }
                (Some(name), value) => {
                    let at = COLUMNS.iter().position(|(column, _)| *column == name);
                    let number = value.as_value().unsigned().and_then(|number| i64::try_from(number).ok());
                    if let (Some(at), Some(number)) = (at, number) {
                        numbers[at] = Some(match name {
                            "pdop" | "hdop" => number * 100,
                            "axis_x_mg" if number > 0x7FFF => number - 0x1_0000,
                            _ => number,
                        });
                    }
                }
            }
        }
        Self {
            ts_us: signed(record.timestamp_ms) * 1000,
            fingerprint: i64::from(crc32fast::hash(&wire(route, record)).cast_signed()),
            longitude: Some(f64::from(record.longitude_raw) / 1e7),
            latitude: Some(f64::from(record.latitude_raw) / 1e7),
            numbers,
            io: (!io.is_empty()).then_some(Json::Object(io)),
        }
    }

    /// The columns that differ, with both values.
    pub(super) fn differences(&self, stored: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |name: &str, sent: String, stored: String| {
            if sent != stored {
                found.push(format!("{name} is {stored}, sent was {sent}"));
            }
        };
        compare("fingerprint", self.fingerprint.to_string(), stored.fingerprint.to_string());
        compare("longitude", shown(self.longitude), shown(stored.longitude));
        compare("latitude", shown(self.latitude), shown(stored.latitude));
        for ((sent, stored), (name, _)) in self.numbers.iter().zip(&stored.numbers).zip(COLUMNS) {
            compare(name, shown(*sent), shown(*stored));
        }
        compare("io", shown(self.io.as_ref()), shown(stored.io.as_ref()));
        found
    }
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| value.to_string())
}

/// The bytes of a record on the wire.
pub(super) fn wire(route: &Route, record: &NewRecord) -> Vec<u8> {
    let mut wire = Vec::new();
    encode::record(route.codec(), record, &mut wire).expect("the route's own records fit their codec");
    wire
}

/// The columns of the elements that routes send, by the documented contract. The others have to stay empty.
fn column(id: u16) -> Option<&'static str> {
    Some(match id {
        16 => "total_odometer_m",
        17 => "axis_x_mg",
        21 => "gsm_signal",
        24 => "io_speed_kmh",
        66 => "external_voltage_mv",
        67 => "battery_voltage_mv",
        69 => "gnss_status",
        80 => "data_mode",
        181 => "pdop",
        182 => "hdop",
        200 => "sleep_mode",
        205 => "gsm_cell_id",
        206 => "gsm_area_code",
        239 => "ignition",
        240 => "movement",
        241 => "gsm_operator",
        _ => return None,
    })
}
