//! Records that cannot become positions are acknowledged, because trackers would resend them forever, and kept for the
//! operator.

use std::time::SystemTime;

use odograph_testkit::{Service, TestDatabase, Tracker, count, eventually, examples, frame, framed, imei, record};
use teltonika_codecs::encode;

const DAY_MS: u64 = 86_400_000;

#[tokio::test]
async fn a_stray_date_is_quarantined_in_timescaledb() {
    a_stray_date_is_quarantined(TestDatabase::postgres().await).await;
}

#[tokio::test]
async fn a_stray_date_is_quarantined_in_sqlite() {
    a_stray_date_is_quarantined(TestDatabase::sqlite()).await;
}

async fn a_stray_date_is_quarantined(database: TestDatabase) {
    let defaults = [("ODOGRAPH_TIME_WINDOW_PAST", "400d"), ("ODOGRAPH_TIME_WINDOW_FUTURE", "1h")];
    let service = Service::start(&database.url(), &defaults).await;
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap();
    let times = [now_ms, now_ms - 399 * DAY_MS, now_ms - 401 * DAY_MS, 1_078_099_200_000, now_ms + 2 * 3_600_000];
    let sent = frame(&times.map(|ts_ms| record(ts_ms, 1)));
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&sent).await, 5, "acknowledged: trackers must not resend quarantined records");
    service.settled().await;
    assert_eq!(database.positions().await, 2);
    let quarantined = database.rows("SELECT reason, detail, record_index, seen FROM quarantined_records").await;
    let mut quarantined: Vec<_> = quarantined
        .iter()
        .map(|row| {
            let text = |column: &str| row[column].as_str().unwrap().to_owned();
            let number = |column: &str| row[column].as_i64().unwrap();
            (number("record_index"), text("reason"), text("detail"), number("seen"))
        })
        .collect();
    quarantined.sort();
    let expected = [(2, "behind"), (3, "behind"), (4, "ahead of")];
    let expected =
        expected.map(|(index, side)| (index, "time_window".to_owned(), format!("{side} the receive time"), 1));
    assert_eq!(quarantined, expected);
    let latest = database.table("latest_positions").await;
    assert_eq!(latest.len(), 1);

    assert_eq!(tracker.deliver(&sent).await, 5);
    service.settled().await;
    assert_eq!(database.positions().await, 2);
    let seen = database.rows("SELECT seen FROM quarantined_records").await;
    assert!(seen.len() == 3 && seen.iter().all(|row| row["seen"] == 2), "{seen:?}");
    let counted = count(service.admin, "odograph_records_quarantined_total{reason=\"time_window\"}").await;
    assert_eq!(counted, 6);
    let counts = service.registry.tally().read();
    assert_eq!((counts.journaled, counts.committed, counts.duplicate, counts.waiting), (10, 2, 2, 0));
    service.stop().await;
}

/// Frames with a correct checksum that cannot be decoded: metric label, first count, frame.
fn undecodable() -> Vec<(&'static str, &'static str, u32, Vec<u8>)> {
    let good = frame(&[record(1_780_000_000_000, 1), record(1_780_000_001_000, 1)]);
    let data = &good[8..good.len() - 4];
    let changed = |at: usize, byte: u8| framed(&[&data[..at], &[byte], &data[at + 1..]].concat());
    vec![
        ("8E", "count_mismatch", 2, changed(data.len() - 1, 9)),
        ("8E", "count_mismatch", 7, changed(1, 7)),
        ("unknown", "unsupported_codec", 2, changed(0, 0x04)),
        ("8E", "bad_structure", 2, changed(31, 0x70)),
        ("8E", "bad_structure", 2, framed(&data[..data.len() - 9])),
        ("unknown", "unsupported_codec", 0, framed(&[0x99, 0, 0])),
    ]
}

#[tokio::test]
async fn what_cannot_be_decoded_is_acknowledged_kept_and_the_connection_goes_on() {
    for (database, mode) in [
        (TestDatabase::postgres().await, "journal"),
        (TestDatabase::postgres().await, "commit"),
        (TestDatabase::sqlite(), "journal"),
        (TestDatabase::sqlite(), "commit"),
    ] {
        let service = Service::start(&database.url(), &[("ODOGRAPH_ACK_AFTER", mode)]).await;
        let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
        let mut named = 0;
        for (codec, result, first_count, bytes) in undecodable() {
            assert_eq!(
                tracker.deliver(&bytes).await,
                first_count,
                "{result}: otherwise the tracker resends it forever"
            );
            assert_eq!(tracker.deliver(&bytes).await, first_count, "sent again");
            named += 2 * u64::from(first_count);
            let series = format!("odograph_frames_total{{codec=\"{codec}\",result=\"{result}\"}}");
            assert!(count(service.admin, &series).await >= 2, "{series}");
        }
        assert_eq!(tracker.deliver(&frame(&[record(1_780_000_002_000, 1)])).await, 1, "the connection stays open");
        service.settled().await;
        assert_eq!(database.positions().await, 1);
        let rows = database.rows("SELECT reason, seen, record_index FROM quarantined_records").await;
        assert_eq!(rows.len(), undecodable().len());
        assert!(
            rows.iter().all(|row| row["reason"] == "undecodable" && row["seen"] == 2 && row["record_index"].is_null())
        );
        let counts = service.registry.tally().read();
        assert_eq!((counts.journaled, counts.committed, counts.waiting), (named + 1, 1, 0));
        let quarantined = "odograph_records_quarantined_total{reason=\"undecodable\"}";
        assert_eq!(count(service.admin, quarantined).await, named);
        service.stop().await;
    }
}

#[tokio::test]
async fn a_record_that_no_calendar_holds_is_quarantined_and_its_neighbours_are_stored() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[]).await;
    let never = encode::NewRecord { timestamp_ms: u64::MAX, ..record(1, 1) };
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(1_780_000_000_000, 1), never])).await, 2);
    service.settled().await;
    assert_eq!(database.positions().await, 1);
    let rows = database.rows("SELECT reason, detail FROM quarantined_records").await;
    assert_eq!((&rows[0]["reason"], &rows[0]["detail"]), (&"time_window".into(), &"no calendar holds it".into()));
    service.stop().await;
}

#[tokio::test]
async fn messages_are_stored_with_their_text_and_never_answered() {
    for (database, mode) in [(TestDatabase::postgres().await, "journal"), (TestDatabase::sqlite(), "commit")] {
        let service = Service::start(&database.url(), &[("ODOGRAPH_ACK_AFTER", mode)]).await;
        let mut tracker = Tracker::login(service.trackers, "356307042441013").await;
        let messages = examples::messages();
        for message in &messages {
            tracker.send(message).await;
        }
        // If the service had answered before, these four bytes would not be this count.
        assert_eq!(tracker.deliver(&frame(&[record(1_780_000_002_000, 1)])).await, 1);
        let stored = async || {
            let rows = database.rows("SELECT imei, codec, text FROM device_messages").await;
            (rows.len() == messages.len()).then_some(rows)
        };
        let rows = eventually("the messages", stored).await;
        assert!(rows.iter().all(|row| row["imei"] == 356_307_042_441_013_u64));
        assert!(rows.iter().any(|row| row["text"].as_str().is_some_and(|text| text.contains("DI1:"))), "{rows:?}");
        service.stop().await;
    }
}

#[tokio::test]
async fn a_frame_with_a_wrong_checksum_is_kept_as_a_file_and_never_in_the_database() {
    let (database, directory) = (TestDatabase::sqlite(), tempfile::tempdir().unwrap());
    let own = [("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())];
    let service = Service::start(&database.url(), &own).await;
    let mut broken = frame(&[record(1_780_000_000_000, 1)]);
    broken[20] ^= 0x10;
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    tracker.send(&broken).await;
    assert!(tracker.is_closed_unanswered().await);
    let file = directory.path().join("wrong-checksum/00000000.hex");
    let written = async || std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'));
    let text = eventually("the file", written).await;
    let hex: String = broken.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text.trim_end(), hex, "a line for odograph decode");
    service.settled().await;
    assert_eq!(database.rows("SELECT reason FROM quarantined_records").await.len(), 0);
    service.stop().await;
}
