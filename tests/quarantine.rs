//! What cannot become a position is acknowledged all the same, or it would be sent for ever, and kept for the operator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::SystemTime;

use support::database::Database;
use support::service;
use support::tracker::{Tracker, frame, imei, record};

const DAY_MS: u64 = 86_400_000;

#[tokio::test]
async fn a_stray_date_is_quarantined_in_timescaledb() {
    a_stray_date_is_quarantined(Database::postgres().await).await;
}

#[tokio::test]
async fn a_stray_date_is_quarantined_in_sqlite() {
    a_stray_date_is_quarantined(Database::sqlite()).await;
}

async fn a_stray_date_is_quarantined(database: Database) {
    let defaults = [("ODOGRAPH_TIME_WINDOW_PAST", "400d"), ("ODOGRAPH_TIME_WINDOW_FUTURE", "1h")];
    let service = service::start(&database.url(), &defaults).await;
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap();
    let times = [now_ms, now_ms - 399 * DAY_MS, now_ms - 401 * DAY_MS, 1_078_099_200_000, now_ms + 2 * 3_600_000];
    let sent = frame(&times.map(|ts_ms| record(ts_ms, 1)));
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&sent).await, 5, "acknowledged: what is in quarantine must not come again");
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
    let counted = service::count(service.admin, "odograph_records_quarantined_total{reason=\"time_window\"}").await;
    assert_eq!(counted, 6);
    let counts = service.registry.tally().read();
    assert_eq!((counts.journaled, counts.committed, counts.duplicate, counts.waiting), (10, 2, 2, 0));
    service.stop().await;
}
