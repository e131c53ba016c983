//! Every valid vendor example goes through a real socket into each store, and every column is read back.

use std::collections::BTreeMap;

use odograph_testkit::{
    Service, TestDatabase, Tracker, count, database::plain, examples, examples::Example, framed, imei,
};

#[tokio::test]
async fn every_example_reaches_timescaledb() {
    every_example_reaches(TestDatabase::postgres().await).await;
}

#[tokio::test]
async fn every_example_reaches_sqlite() {
    every_example_reaches(TestDatabase::sqlite()).await;
}

async fn every_example_reaches(database: TestDatabase) {
    let service = Service::start(&database.url(), &[]).await;
    let examples = examples::with_records();
    assert_eq!(examples.len(), 12, "all valid examples with records");
    let mut expected = BTreeMap::new();
    for (number, Example { name, frame, codec_id, records }) in examples.iter().enumerate() {
        let imei = imei(number as u64);
        let mut tracker = Tracker::login(service.trackers, &imei.to_string()).await;
        assert_eq!(tracker.deliver(frame).await as usize, records.len(), "{name}");
        for record in records {
            let row = examples::row(imei.get(), *codec_id, record);
            expected.insert((imei.get(), record["timestamp_ms"].as_u64().unwrap()), (name, row));
        }
    }
    service.settled().await;
    let rows = database.all_positions().await;
    assert_eq!(rows.len(), expected.len());
    for mut row in rows {
        let key = (row["imei"].as_u64().unwrap(), row["ts_ms"].as_u64().unwrap());
        let (name, expected) = &expected[&key];
        let received_us = row.remove("received_us").unwrap().as_i64().unwrap();
        let now_us = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        assert!((0..60_000_000).contains(&(i64::try_from(now_us).unwrap() - received_us)), "{name} was received now");
        for derived in ["fingerprint", "ts", "received_at"] {
            assert!(row.remove(derived).is_some_and(|value| !value.is_null()), "{name} has {derived}");
        }
        let expected = expected.iter().map(|(column, value)| (column.clone(), plain(value.clone()))).collect();
        assert_eq!(row, expected, "{name}");
    }
    service.stop().await;
}

#[tokio::test]
async fn the_fingerprint_is_the_crc_32_of_the_records_wire_bytes() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[]).await;
    let example = &examples::with_records()[0];
    assert_eq!(example.name, "codec8-tcp-1-all-widths");
    let mut tracker = Tracker::login(service.trackers, "356307042441013").await;
    assert_eq!(tracker.deliver(&example.frame).await, 1);
    // Envelope head, codec ID and count come first; count and CRC come last.
    let wire = &example.frame[10..example.frame.len() - 5];
    service.settled().await;
    let row = database.all_positions().await.remove(0);
    assert_eq!(row["fingerprint"], i64::from(crc32fast::hash(wire).cast_signed()));
    service.stop().await;
}

#[tokio::test]
async fn messages_and_pings_are_never_answered_and_do_not_disturb() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[]).await;
    let mut tracker = Tracker::login(service.trackers, "356307042441013").await;
    for message in examples::messages() {
        tracker.send(&message).await;
    }
    tracker.send(&[0xFF, 0xFF]).await;
    tracker.send(&framed(&[0x0C, 0, 0])).await;
    // If the service had answered before, these four bytes would not be this count.
    let array = examples::with_records().into_iter().find(|e| e.records.len() == 4).unwrap();
    assert_eq!(tracker.deliver(&array.frame).await, 4);
    assert_eq!(tracker.deliver(&framed(&[0x08, 0, 0])).await, 0, "a frame without records is answered with 0");
    assert_eq!(count(service.admin, "odograph_messages_total{codec=\"12\"}").await, 4);
    service.stop().await;
}
