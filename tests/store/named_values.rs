//! One value, three tellers: `odograph decode --named`, and the view `positions_named` of both databases, over every element of
//! the dictionary in every width with edge values.

use std::collections::BTreeMap;
use std::time::Duration;

use odograph::ingest::drain::{BatchBuilder, DuplicateFilter, FilterSizes, TimeWindow};
use odograph::store::Batch;
use odograph_journal::{EntryKind, NewEntry, Position};
use odograph_testkit::{IMEI, PostgresFixture, SqliteFixture, StoreFixture, frame, record};
use serde_json::Value as Json;
use sqlx::Row as _;
use teltonika_codecs::dictionary;
use teltonika_codecs::encode::{NewElement, NewRecord, NewValue};
use uuid::Uuid;

const T: u64 = 1_780_000_000_000;

/// Values of every width at the edges of signs, ranges, error codes and floats, and values of variable length.
fn edges() -> Vec<NewValue> {
    let u8s = [0, 1, 2, 100, 101, 127, 128, 254, 255].map(NewValue::U8);
    let u16s = [
        0, 1, 850, 1000, 1001, 2000, 3000, 4000, 5000, 12_500, 12_501, 32_764, 32_765, 32_767, 32_768, 40_000, 53_036,
        65_533, 65_534, 65_535,
    ];
    let u32s = [0, 850, 3000, 40_000, 65_534, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF];
    let u64s = [
        0,
        3000,
        40_000,
        0x0123_4567_89AB_CDEF,
        1 << 53,
        (1 << 53) + 1,
        0x7FFF_FFFF_FFFF_FFFF,
        0x8000_0000_0000_0000,
        0xFFFF_FFFF_FFFF_FFFE,
        u64::MAX,
    ];
    let bytes = [&b""[..], b"\0", b"ABC\0\0", b" ", b"~ok", b"\x7F", b"a\nb", b"A\0B", b"\xC3\xA9", b"\x01\x02"];
    u8s.into_iter()
        .chain(u16s.map(NewValue::U16))
        .chain(u32s.map(NewValue::U32))
        .chain(u64s.map(NewValue::U64))
        .chain(bytes.map(|bytes| NewValue::Bytes(bytes.to_vec())))
        .collect()
}

/// A frame for each edge: one record that has it in every element, and in one that the dictionary does not know.
fn frames() -> Vec<Vec<u8>> {
    let ids = || dictionary::all().iter().map(|element| element.id).chain([60_001]);
    edges()
        .into_iter()
        .zip(0..)
        .map(|(value, number)| {
            let elements = ids().map(|id| NewElement { id, value: value.clone() }).collect();
            frame(&[NewRecord { elements, ..record(T + number, 1) }])
        })
        .collect()
}

fn batch_of(frames: &[Vec<u8>]) -> Batch {
    let ever = Duration::from_hours(500_000);
    let window = TimeWindow { past: ever, future: ever };
    let mut builder = BatchBuilder::new(window, DuplicateFilter::new(FilterSizes::default()));
    for (frame, position) in frames.iter().zip(1..) {
        let (imei, bytes) = (IMEI.parse().unwrap(), &frame[8..frame.len() - 4]);
        let entry = NewEntry { kind: EntryKind::Frame, imei, received_at_us: 0, records: 1, bytes };
        builder.entry(Position(position), Uuid::nil(), &entry);
    }
    assert!(builder.batch().quarantined.is_empty(), "{:?}", builder.batch().quarantined);
    builder.batch().clone()
}

/// Elements by label, each as value, unit and fault.
type Named = BTreeMap<String, [Json; 3]>;

/// What `odograph decode --named` says of a frame.
fn decoded(frame: &[u8]) -> Named {
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let output = crate::ODOGRAPH.run(&["decode", "--named", &hex], &[]);
    let line: Json = serde_json::from_slice(&output.stdout).unwrap();
    let shared = |name: &str| dictionary::all().iter().filter(|element| element.name == name).count() > 1;
    let named = line["records"][0]["named"].as_array().unwrap().iter().map(|element| {
        let label = match (element["name"].as_str(), element["id"].as_u64().unwrap()) {
            (None, id) => format!("element {id}"),
            (Some(name), id) if shared(name) => format!("{name} ({id})"),
            (Some(name), _) => name.to_owned(),
        };
        (label, [element["value"].clone(), element["unit"].clone(), element["fault"].clone()])
    });
    named.collect()
}

fn viewed(elements: &str) -> Named {
    let elements: BTreeMap<String, Json> = serde_json::from_str(elements).unwrap();
    let parts = |element: Json| ["value", "unit", "fault"].map(|part| element[part].clone());
    elements.into_iter().map(|(label, element)| (label, parts(element))).collect()
}

/// The same number in any spelling. Booleans of columns are numbers.
fn plain(value: &Json) -> Json {
    match value {
        Json::Bool(is) => Json::from(f64::from(u8::from(*is))),
        Json::Number(number) => Json::from(number.as_f64()),
        other => other.clone(),
    }
}

#[track_caller]
fn same(view: &Named, decoded: &Named, value: &NewValue, is_exact: bool) {
    assert_eq!(view.keys().collect::<Vec<_>>(), decoded.keys().collect::<Vec<_>>(), "{value:?}");
    for (label, of_decode) in decoded {
        let (left, right) = (view[label].clone().map(|part| plain(&part)), of_decode.clone().map(|part| plain(&part)));
        // SQLite multiplies as a float what no float holds.
        let scaled_beyond = !is_exact && right[0].as_str().is_some() && left[0].is_number();
        assert!(left == right || scaled_beyond, "{label} of {value:?}: view {left:?}, decode {right:?}");
    }
}

#[tokio::test]
async fn decode_and_both_views_say_the_same_of_every_element() {
    let (frames, edges) = (frames(), edges());
    let batch = batch_of(&frames);
    let mut postgres = PostgresFixture::new().await;
    postgres.store().commit(&batch).await.unwrap();
    let rows = postgres.client.query("SELECT elements::text FROM positions_named ORDER BY ts", &[]).await.unwrap();
    let in_postgres: Vec<_> = rows.iter().map(|row| viewed(row.get(0))).collect();
    let mut sqlite = SqliteFixture::new().await;
    sqlite.store().commit(&batch).await.unwrap();
    let query = sqlx::query("SELECT elements FROM positions_named ORDER BY ts_ms");
    let rows = query.fetch_all(&mut sqlite.connect().await).await.unwrap();
    let in_sqlite: Vec<_> = rows.iter().map(|row| viewed(row.get(0))).collect();
    assert_eq!((in_postgres.len(), in_sqlite.len()), (edges.len(), edges.len()));
    let mut faults = 0;
    for (((frame, value), postgres), sqlite) in frames.iter().zip(&edges).zip(&in_postgres).zip(&in_sqlite) {
        let decoded = decoded(frame);
        same(postgres, &decoded, value, true);
        same(sqlite, &decoded, value, false);
        faults += decoded.values().filter(|[_, _, fault]| !fault.is_null()).count();
    }
    assert!(faults > 1000, "{faults} faults");
}

/// What people read, spelled out.
#[test]
fn signs_error_codes_and_identifiers_are_what_people_expect() {
    let element = |id, value| NewElement { id, value };
    let elements = vec![
        element(25, NewValue::U16(3000)),
        element(72, NewValue::U32(850)),
        element(86, NewValue::U16(65_534)),
        element(26, NewValue::U16(2150)),
        element(27, NewValue::U32(0xFFFF_FFEC)),
        element(78, NewValue::U64(0x0102_0304_0506_0708)),
        element(207, NewValue::U64(0xAB)),
        element(17, NewValue::U16(0xFFFE)),
        element(66, NewValue::U16(24_079)),
    ];
    let named = decoded(&frame(&[NewRecord { elements, ..record(T, 1) }]));
    let expected = serde_json::json!({
        "BLE Temperature #1": [null, "°C", "sensor not found"],
        "Dallas Temperature 1": [null, "°C", "sensor not ready"],
        "BLE Humidity #1": [null, "%RH", "sensor not found"],
        "BLE Temperature #2": [21.5, "°C", null],
        "BLE Temperature #3": [-0.2, "°C", null],
        "iButton": ["0807060504030201", null, null],
        "RFID": ["00000000000000AB", null, null],
        "Axis X": [-2, "mG", null],
        "External Voltage": [24.079, "V", null],
    });
    assert_eq!(serde_json::to_value(named).unwrap(), expected);
}
