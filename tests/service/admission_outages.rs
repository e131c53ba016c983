//! Admission while the database is down: the last known list applies, also after a restart. Without a list the service
//! neither admits nor refuses.

use odograph_testkit::{
    PrivateServer, StopMode, TestDatabase, Tracker, count, eventually, frame, imei, metric, readiness, record,
};

use crate::admission_setup::{
    closed, devices, is_sent_away, is_told_no, knows, register, reloads, said, serve, with_devices,
};

const T: u64 = 1_780_000_000_000;

#[tokio::test]
async fn a_restart_during_an_outage_still_knows_its_trackers_unless_the_list_is_damaged() {
    let server = PrivateServer::new("admission");
    let database = with_devices(TestDatabase::postgres_empty(&server.url).await, &[imei(1)]).await;
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[]);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T, 1)])).await, 1);
    server.stop(StopMode::Immediate);
    let outage = std::time::Instant::now();
    let admin = process.admin;
    let failed = async || (reloads(admin, "unavailable").await >= 2).then_some(());
    eventually("the outage to be noticed", failed).await;
    assert_eq!(tracker.deliver(&frame(&[record(T + 1000, 1)])).await, 1, "sessions go on");
    Tracker::login(process.trackers, &imei(1).to_string()).await;
    is_told_no(process.trackers, imei(2)).await;
    process.kill();

    let process = serve(&database, directory.path(), &[]);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T + 2000, 1)])).await, 1);
    is_told_no(process.trackers, imei(2)).await;
    assert_eq!(readiness(process.admin).await, (200, true, vec!["store_down".into()]));
    // Since it was read, which was before the outage, and not since the start.
    let outage = outage.elapsed().as_secs_f64();
    assert!(metric(process.admin, "odograph_admission_list_age_seconds").await > outage - 0.001);
    process.kill();

    let file = directory.path().join("known-devices");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let process = serve(&database, directory.path(), &[]);
    is_sent_away(process.trackers, imei(1)).await;
    assert!(readiness(process.admin).await.2.contains(&"admission_unknown".into()));
    assert!(
        process.logs().iter().any(|line| line.contains("cannot use the last known list") && line.contains("damaged"))
    );
    assert_eq!(count(process.admin, "odograph_admission_file_failures_total").await, 1);
    let output = devices(directory.path(), &["known"]);
    assert!(output.status.code() == Some(1) && said(&output).1.contains("damaged"), "{output:?}");

    server.start();
    knows(process.admin, 1).await;
    Tracker::login(process.trackers, &imei(1).to_string()).await;
    process.settled().await;
    assert_eq!(database.positions().await, 3);
    assert_eq!(std::fs::read(&file).unwrap(), whole, "written again");
    // Notifications of changes work again after the outage, too.
    register(&database, imei(2)).await;
    knows(process.admin, 2).await;
}

#[tokio::test]
async fn a_service_that_never_knew_its_devices_sends_every_tracker_away_unanswered_until_it_does() {
    let server = PrivateServer::new("unadmitted");
    let database = with_devices(TestDatabase::postgres_empty(&server.url).await, &[imei(1)]).await;
    server.stop(StopMode::Fast);
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[]);
    let admin = process.admin;
    for number in [1, 2] {
        is_sent_away(process.trackers, imei(number)).await;
    }
    closed(admin, "admission_unknown", 2).await;
    assert_eq!(count(admin, "odograph_logins_total{result=\"admission_unknown\"}").await, 2);
    let (status, ready, reasons) = readiness(admin).await;
    assert_eq!((status, ready), (503, false));
    assert_eq!(reasons, ["admission_unknown", "store_down"]);
    server.start();
    knows(admin, 1).await;
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T, 1)])).await, 1);
    is_told_no(process.trackers, imei(2)).await;
    eventually("readiness", async || readiness(admin).await.2.is_empty().then_some(())).await;
    assert_eq!(process.terminate(), Some(0));
    let output = devices(directory.path(), &["unknown", "--json"]);
    assert_eq!(said(&output).0.lines().count(), 1, "a device that was neither admitted nor refused is not listed");
}
