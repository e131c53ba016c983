//! The database down, the process killed: no acknowledged record is lost or stored twice, and the service goes on
//! by itself.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use odograph::store::DatabaseUrl;
use odograph_fleet::{Plan, Progress, audit};
use odograph_testkit::service::AFTER_COMMIT;
use odograph_testkit::{
    PrivateServer, Service, StopMode, TestDatabase, Tracker, count, eventually, frame, imei, metric, readiness, record,
    server_url,
};
use tokio_util::sync::CancellationToken;

use crate::ODOGRAPH;

const T: u64 = 1_780_000_000_000;

fn plan(target: std::net::SocketAddr) -> Plan {
    Plan { devices: 50, records: 5, packets: None, lose_answer_every: 10, ..Plan::new(target, T) }
}

#[tokio::test]
async fn a_killed_service_has_every_acknowledged_record_exactly_once() {
    let database = TestDatabase::postgres().await;
    let directory = tempfile::tempdir().unwrap();
    let own = [("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())];
    let mut process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &own);
    let address = process.trackers;
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let fleet = tokio::spawn(odograph_fleet::run(plan(address), Arc::clone(&progress), stop.clone()));
    for kill in 1..=10_u64 {
        let (_, before, _) = progress.read();
        let more = async || (progress.read().1 > before + 2_000).then_some(());
        eventually("the fleet to go on", more).await;
        process.kill();
        process = ODOGRAPH.serve(&database.url(), &address.to_string(), &own);
        assert!(progress.read().1 > 0, "kill {kill}");
    }
    stop.cancel();
    let reports = fleet.await.unwrap();
    process.settled().await;
    assert_eq!(process.terminate(), Some(0), "SIGTERM shuts it down cleanly");
    let findings = audit::audit(&DatabaseUrl::parse(&database.url()).unwrap(), &reports).await.unwrap();
    assert!(findings.acknowledged > 5_000, "{findings:?}");
    assert!(findings.clean(), "{findings:?}");
    assert_eq!(findings.stored, database.positions().await, "only the fleet's rows are stored");
}

#[tokio::test]
async fn a_database_that_stops_and_comes_back_under_load_costs_nothing() {
    let server = PrivateServer::new("outage");
    let database = TestDatabase::postgres_in(&server.url).await;
    let service = Service::start(&database.url(), &[]).await;
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let fleet = tokio::spawn(odograph_fleet::run(plan(service.trackers), Arc::clone(&progress), stop.clone()));
    let admin = service.admin;
    for how in [StopMode::Immediate, StopMode::Fast] {
        let (_, before, _) = progress.read();
        eventually("load", async || (progress.read().1 > before + 2_000).then_some(())).await;
        server.stop(how);
        eventually("readiness to say it", async || {
            let (status, ready, reasons) = readiness(admin).await;
            (status == 200 && ready && reasons == ["store_down"]).then_some(())
        })
        .await;
        let (_, down, _) = progress.read();
        assert!(metric(admin, "odograph_store_errors_total{class=\"unavailable\"}").await >= 1.0);
        server.start();
        eventually("the service to go on by itself", async || (progress.read().1 > down + 2_000).then_some(())).await;
        eventually("readiness", async || readiness(admin).await.2.is_empty().then_some(())).await;
    }
    stop.cancel();
    let reports = fleet.await.unwrap();
    service.settled().await;
    service.stop().await;
    let findings = audit::audit(&DatabaseUrl::parse(&database.url()).unwrap(), &reports).await.unwrap();
    assert!(findings.clean() && findings.acknowledged > 3_000, "{findings:?}");
}

#[tokio::test]
async fn without_a_database_at_the_start_nothing_is_acknowledged_until_it_comes() {
    let server = PrivateServer::new("late");
    let database = TestDatabase::postgres_in(&server.url).await;
    server.stop(StopMode::Fast);
    let service = Service::start(&database.url(), &[AFTER_COMMIT]).await;
    let (admin, series) = (service.admin, "odograph_records_waiting");
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    tracker.send(&frame(&[record(T, 1), record(T + 1, 1)])).await;
    eventually("the frame to wait", async || (metric(admin, series).await >= 2.0).then_some(())).await;
    assert_eq!(readiness(admin).await, (200, true, vec!["store_down".into()]), "known from the start on");
    let answer = tokio::time::timeout(Duration::from_millis(300), tracker.receive::<1>()).await;
    assert!(answer.is_err(), "not acknowledged");
    server.start();
    assert_eq!(tracker.receive::<4>().await.unwrap(), [0, 0, 0, 2]);
    assert_eq!(database.positions().await, 2);
    eventually("readiness", async || readiness(admin).await.2.is_empty().then_some(())).await;
    service.stop().await;
}

#[tokio::test]
async fn a_stop_during_an_outage_ends_in_time_and_acknowledges_nothing() {
    let server = PrivateServer::new("stop");
    let database = TestDatabase::postgres_in(&server.url).await;
    let service = Service::start(&database.url(), &[("ODOGRAPH_SHUTDOWN_GRACE", "500ms"), AFTER_COMMIT]).await;
    let admin = service.admin;
    let mut stored = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(stored.deliver(&frame(&[record(T, 1)])).await, 1);
    server.stop(StopMode::Immediate);
    stored.send(&frame(&[record(T + 1000, 1)])).await;
    let series = "odograph_records_waiting";
    eventually("the frame to wait", async || (metric(admin, series).await >= 1.0).then_some(())).await;
    let counts = tokio::time::timeout(Duration::from_secs(20), service.stop()).await.expect("it stops in time");
    assert_eq!((counts.acknowledged, counts.waiting), (1, 1));
    assert!(stored.is_closed_unanswered().await);
    server.start();
    assert_eq!(database.positions().await, 1);
}

#[tokio::test]
async fn an_outdated_schema_stops_the_start_with_the_command_that_repairs_it() {
    let database = TestDatabase::postgres_empty(&server_url()).await;
    let output = |command: &[&str]| {
        let mut process = Command::new(ODOGRAPH.path());
        process.args(command).env("DATABASE_URL", database.url()).env("ODOGRAPH_LISTEN", "127.0.0.1:0");
        process.env("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0").output().unwrap()
    };
    let refused = output(&["serve"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("odograph migrate"));
    for expected in ["applied: ", "the schema was current"] {
        let migrated = output(&["migrate"]);
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        let said = String::from_utf8_lossy(&migrated.stdout).into_owned();
        assert!(said.contains(expected) && said.contains("hypertable"), "{said}");
    }
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[]);
    assert_eq!(process.terminate(), Some(0));
}

#[tokio::test]
async fn a_schema_found_outdated_after_a_late_database_is_waited_for() {
    let server = PrivateServer::new("older");
    let database = TestDatabase::postgres_empty(&server.url).await;
    server.stop(StopMode::Fast);
    let service = Service::start(&database.url(), &[AFTER_COMMIT]).await;
    let admin = service.admin;
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    tracker.send(&frame(&[record(T, 1)])).await;
    server.start();
    eventually("readiness to say it", async || {
        let (status, ready, reasons) = readiness(admin).await;
        (status == 200 && ready && reasons == ["schema_outdated"]).then_some(())
    })
    .await;
    let url = DatabaseUrl::parse(&database.url()).unwrap();
    odograph::store::migrate(&url, &odograph::store::MigrateOptions::default()).await.unwrap();
    assert_eq!(tracker.receive::<4>().await.unwrap(), [0, 0, 0, 1]);
    service.stop().await;
}

#[tokio::test]
async fn at_the_bound_of_bytes_in_flight_sockets_wait_and_nothing_is_lost() {
    const TRACKERS: u64 = 250;
    let server = PrivateServer::new("bound");
    let database = TestDatabase::postgres_in(&server.url).await;
    server.stop(StopMode::Fast);
    let bounds = [("ODOGRAPH_INFLIGHT_MAX", "1MiB"), ("ODOGRAPH_FRAME_TIMEOUT", "1s"), AFTER_COMMIT];
    let service = Service::start(&database.url(), &bounds).await;
    let admin = service.admin;
    let records: Vec<_> = (0..150).map(|n| record(T + n * 1000, 1)).collect();
    let frame = frame(&records);
    // More than one read, less than the read-ahead: the rest of a frame arrives while it waits for its share of bytes.
    assert!((4097..8192).contains(&frame.len()));
    let mut trackers = Vec::new();
    for number in 0..TRACKERS {
        let mut tracker = Tracker::login(service.trackers, &imei(number).to_string()).await;
        tracker.send(&frame).await;
        trackers.push(tracker);
    }
    // The data field, and what an entry costs beside it.
    let fit = (1_u64 << 20) / (frame.len() as u64 - 12 + 256);
    assert!(fit < TRACKERS, "the trackers send more than may be in flight");
    let full = async || (count(admin, "odograph_records_waiting").await == fit * 150).then_some(());
    eventually("the bound to be reached", full).await;

    // Trackers give up long before a database comes back. Their connections must not pile up.
    let staying = trackers.split_off(usize::try_from(TRACKERS / 2).unwrap());
    drop(trackers);
    let left = async || (count(admin, "odograph_connections_open").await == staying.len() as u64).then_some(());
    eventually("abandoned connections to be closed", left).await;
    assert_eq!(count(admin, "odograph_records_waiting").await, fit * 150, "the bound holds, and nothing was dropped");

    server.start();
    for mut tracker in staying {
        assert_eq!(tracker.receive::<4>().await.unwrap(), [0, 0, 0, 150]);
    }
    assert!(database.positions().await >= TRACKERS / 2 * 150);
    service.stop().await;
}

/// Of a frame that announces `total` bytes of data, the first `present` bytes.
fn begun(total: u32, present: usize) -> Vec<u8> {
    let mut frame = [&[0; 4][..], &total.to_be_bytes(), &[0x0C, 1]].concat();
    frame.resize(present, 0);
    frame
}

#[tokio::test]
async fn frames_that_were_only_announced_hold_up_no_other() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[("ODOGRAPH_INFLIGHT_MAX", "1MiB")]).await;
    let mut idle = Vec::new();
    for number in 0..64 {
        let mut tracker = Tracker::login(service.trackers, &imei(1000 + number).to_string()).await;
        tracker.send(&begun(64 << 10, 26)).await;
        idle.push(tracker);
    }
    // Longer than what needs no share of memory.
    let records: Vec<_> = (0..150).map(|n| record(T + n * 1000, 1)).collect();
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    for _ in 0..5 {
        tracker.send(&frame(&records)).await;
        let answer = tokio::time::timeout(Duration::from_secs(5), tracker.receive::<4>()).await;
        assert_eq!(answer.expect("others only announce their frames").unwrap(), [0, 0, 0, 150]);
    }
    service.stop().await;
}

#[tokio::test]
async fn long_frames_that_wait_for_each_others_memory_all_end() {
    const TRACKERS: u64 = 200;
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[("ODOGRAPH_INFLIGHT_MAX", "1MiB")]).await;
    // A message of 12 KiB: the CRC is right.
    let data = [&[0x0C, 1, 6][..], &12_000_u32.to_be_bytes(), &[b'x'; 12_000], &[1]].concat();
    let crc = u32::from(teltonika_codecs::crc16(&data));
    let length = u32::try_from(data.len()).unwrap();
    let message = [&[0; 4][..], &length.to_be_bytes(), &data, &crc.to_be_bytes()].concat();
    let mut trackers = Vec::new();
    for number in 0..TRACKERS {
        let mut tracker = Tracker::login(service.trackers, &imei(number).to_string()).await;
        tracker.send(&message[..8_000]).await;
        trackers.push(tracker);
    }
    for tracker in &mut trackers {
        tracker.send(&message[8_000..]).await;
    }
    let messages =
        async || (count(service.admin, r#"odograph_messages_total{codec="12"}"#).await == TRACKERS).then_some(());
    eventually("every message", messages).await;
    service.stop().await;
}
