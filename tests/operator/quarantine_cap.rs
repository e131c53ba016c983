//! A device that sends only bad records does not fill the disk, and every record is counted.

use odograph::config::{Lookup, Settings};
use odograph_testkit::service::AFTER_COMMIT;
use odograph_testkit::{Service, TestDatabase, Tracker, count, frame, imei, record};

const T: u64 = 1_780_000_000_000;
const CAPPED: &str = "odograph_quarantine_capped_total";
const REFUSED: &str = "odograph_records_quarantined_total{reason=\"time_window\"}";

#[test]
fn the_bound_is_a_number_above_nothing_or_none() {
    let most = |value| Settings::load(&Lookup::from_variables([("ODOGRAPH_QUARANTINE_MAX_PER_HOUR", value)]));
    assert_eq!(most("7").unwrap().quarantine_max_per_hour, Some(7));
    assert_eq!(most("none").unwrap().quarantine_max_per_hour, None);
    assert_eq!(Settings::load(&Lookup::default()).unwrap().quarantine_max_per_hour, Some(1000));
    for invalid in ["0", "-1", "many", ""] {
        let mistakes = most(invalid).unwrap_err();
        assert_eq!(mistakes.0[0].setting, "ODOGRAPH_QUARANTINE_MAX_PER_HOUR", "{invalid}");
    }
}

#[tokio::test]
async fn quarantine_is_bounded_per_device_and_hour_in_timescaledb() {
    quarantine_is_bounded_per_device_and_hour(TestDatabase::postgres().await).await;
}

#[tokio::test]
async fn quarantine_is_bounded_per_device_and_hour_in_sqlite() {
    quarantine_is_bounded_per_device_and_hour(TestDatabase::sqlite()).await;
}

#[tokio::test]
async fn without_a_journal_everything_is_kept_as_nothing_else_has_it() {
    let database = TestDatabase::postgres().await;
    let settings = [
        AFTER_COMMIT,
        ("ODOGRAPH_TIME_WINDOW_PAST", "2h"),
        ("ODOGRAPH_TIME_WINDOW_FUTURE", "2h"),
        ("ODOGRAPH_QUARANTINE_MAX_PER_HOUR", "30"),
    ];
    let service = Service::start(&database.url(), &settings).await;
    let mut stray = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(stray.deliver(&frame(&(0..50).map(|n| record(T + n, 1)).collect::<Vec<_>>())).await, 50);
    assert_eq!(database.rows("SELECT digest FROM quarantined_records").await.len(), 50);
    assert_eq!(count(service.admin, CAPPED).await, 0);
    service.stop().await;
}

async fn quarantine_is_bounded_per_device_and_hour(database: TestDatabase) {
    let settings = [
        ("ODOGRAPH_TIME_WINDOW_PAST", "2h"),
        ("ODOGRAPH_TIME_WINDOW_FUTURE", "2h"),
        ("ODOGRAPH_QUARANTINE_MAX_PER_HOUR", "30"),
    ];
    // Records received in the next hour would be kept again.
    let second = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() % 3600;
    if second > 3570 {
        tokio::time::sleep(std::time::Duration::from_secs(3601 - second)).await;
    }
    let rubbish = |from: u64, count: u64| frame(&(from..from + count).map(|n| record(T + n, 1)).collect::<Vec<_>>());
    let kept = async |device| {
        let query = format!("SELECT seen FROM quarantined_records WHERE imei = {}", imei(device).get());
        let rows = database.rows(&query).await;
        (rows.len(), rows.iter().map(|row| row["seen"].as_u64().unwrap()).sum::<u64>())
    };

    let service = Service::start(&database.url(), &settings).await;
    let mut hostile = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(hostile.deliver(&rubbish(0, 20)).await, 20);
    service.settled().await;
    assert_eq!(hostile.deliver(&rubbish(10, 50)).await, 50, "acknowledged although not all are kept");
    service.settled().await;
    assert_eq!(kept(1).await, (30, 40), "ten came again, ten of the other forty had room");
    assert_eq!((count(service.admin, CAPPED).await, count(service.admin, REFUSED).await), (30, 70));
    let mut other = Tracker::login(service.trackers, &imei(2).to_string()).await;
    assert_eq!(other.deliver(&rubbish(0, 25)).await, 25);
    service.settled().await;
    assert_eq!(kept(2).await, (25, 25), "each device has its own bound");
    let counts = service.registry.tally().read();
    assert_eq!((counts.journaled, counts.committed, counts.waiting), (95, 0, 0));
    assert_eq!(counts.quarantined.iter().sum::<u64>(), 95, "conserved");
    service.stop().await;

    // A restart does not reset the bound, and stored records still count duplicates.
    let service = Service::start(&database.url(), &settings).await;
    let mut hostile = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(hostile.deliver(&rubbish(0, 20)).await, 20);
    assert_eq!(hostile.deliver(&rubbish(1000, 200)).await, 200);
    service.settled().await;
    assert_eq!(kept(1).await, (30, 60));
    assert_eq!(count(service.admin, CAPPED).await, 200);
    service.stop().await;

    let service =
        Service::start(&database.url(), &[&settings[..2], &[("ODOGRAPH_QUARANTINE_MAX_PER_HOUR", "none")]].concat())
            .await;
    let mut hostile = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(hostile.deliver(&rubbish(2000, 200)).await, 200);
    service.settled().await;
    assert_eq!(kept(1).await, (230, 260));
    service.stop().await;
}
