//! The service with its journal: trackers do not see an outage of the database, and acknowledged records survive kills,
//! full journals and changed numbers of lanes.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use odograph::store::DatabaseUrl;
use odograph_fleet::{Plan, Progress, TrackerReport, audit};
use odograph_testkit::{
    PrivateServer, Service, SmallDisk, StopMode, TestDatabase, Tracker, count, eventually, frame, framed, get, imei,
    readiness, record,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ODOGRAPH;

const T: u64 = 1_780_000_000_000;

/// A running fleet.
struct Fleet {
    progress: Arc<Progress>,
    stop: CancellationToken,
    reports: JoinHandle<Vec<TrackerReport>>,
}

impl Fleet {
    fn start(target: std::net::SocketAddr, devices: u32) -> Self {
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let plan = Plan { devices, records: 5, packets: None, lose_answer_every: 10, ..Plan::new(target, T) };
        let reports = tokio::spawn(odograph_fleet::run(plan, Arc::clone(&progress), stop.clone()));
        Self { progress, stop, reports }
    }

    fn acknowledged(&self) -> u64 {
        self.progress.read().1
    }

    async fn goes_on(&self, more: u64) {
        let from = self.acknowledged();
        eventually("the fleet to go on", async || (self.acknowledged() >= from + more).then_some(())).await;
    }

    async fn stop(self) -> Vec<TrackerReport> {
        self.stop.cancel();
        self.reports.await.unwrap()
    }
}

async fn is_clean(database: &TestDatabase, reports: &[TrackerReport], at_least: u64) {
    let findings = audit::audit(&DatabaseUrl::parse(&database.url()).unwrap(), reports).await.unwrap();
    assert!(findings.clean(), "{findings:?}");
    assert!(findings.acknowledged >= at_least, "{findings:?}");
    assert_eq!(findings.stored, database.positions().await, "only the fleet's rows are stored");
    // Each device's latest position is its latest valid row, however often the service was killed.
    let stale = "SELECT l.imei FROM latest_positions l FULL JOIN \
         (SELECT DISTINCT ON (imei) imei, ts, fingerprint FROM positions WHERE valid AND NOT faulty \
          ORDER BY imei, ts DESC, fingerprint DESC) p USING (imei) \
         WHERE (l.ts, l.fingerprint) IS DISTINCT FROM (p.ts, p.fingerprint)";
    if matches!(database, TestDatabase::Postgres { .. }) {
        eventually("the latest positions", async || database.rows(stale).await.is_empty().then_some(())).await;
    }
}

/// Asserts that a scrape shows as many records at the sources as at the sinks.
async fn conserved(admin: std::net::SocketAddr) -> u64 {
    let (_, text) = get(admin, "/metrics").await;
    let sum = |name: &str| -> u64 {
        let name = format!("odograph_records_{name}");
        let values = text.lines().filter_map(|line| line.strip_prefix(&name)?.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    };
    let sinks = ["committed_total", "duplicate_total", "quarantined_total", "waiting"].map(sum);
    assert_eq!(sum("recovered_total") + sum("journaled_total"), sinks.iter().sum::<u64>(), "{text}");
    sum("recovered_total")
}

#[tokio::test]
async fn trackers_do_not_notice_that_the_database_is_away() {
    let server = PrivateServer::new("unnoticed");
    let database = TestDatabase::postgres_in(&server.url).await;
    server.stop(StopMode::Fast);
    let service = Service::start(&database.url(), &[]).await;
    let admin = service.admin;
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T, 1), record(T + 1, 1)])).await, 2);
    let down = async || (readiness(admin).await == (200, true, vec!["store_down".into()])).then_some(());
    eventually("readiness to name it, and to stay ready", down).await;
    assert_eq!(count(admin, "odograph_records_waiting").await, 2);
    assert!(count(admin, "odograph_journal_bytes{state=\"uncommitted\"}").await > 0);
    assert!(count(admin, "odograph_drain_lag_bytes").await > 0);
    server.start();
    service.settled().await;
    assert_eq!(database.positions().await, 2);
    eventually("readiness", async || readiness(admin).await.2.is_empty().then_some(())).await;
    eventually("release", async || (count(admin, "odograph_drain_lag_bytes").await == 0).then_some(())).await;
    assert_eq!(tracker.deliver(&frame(&[record(T + 2, 1)])).await, 1);
    service.stop().await;
}

#[tokio::test]
async fn a_database_that_stops_for_twenty_seconds_under_load_costs_nothing_and_nobody_waits() {
    let server = PrivateServer::new("twenty");
    let database = TestDatabase::postgres_in(&server.url).await;
    let service = Service::start(&database.url(), &[]).await;
    let fleet = Fleet::start(service.trackers, 50);
    fleet.goes_on(2_000).await;
    server.stop(StopMode::Immediate);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while tokio::time::Instant::now() < until {
        fleet.goes_on(1_000).await;
        conserved(service.admin).await;
    }
    server.start();
    fleet.goes_on(2_000).await;
    let reports = fleet.stop().await;
    service.settled().await;
    service.stop().await;
    is_clean(&database, &reports, 8_000).await;
}

#[tokio::test]
async fn what_was_acknowledged_during_an_outage_survives_a_kill() {
    let server = PrivateServer::new("killed");
    let database = TestDatabase::postgres_in(&server.url).await;
    let directory = tempfile::tempdir().unwrap();
    let own = [("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())];
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &own);
    let address = process.trackers;
    let fleet = Fleet::start(address, 20);
    fleet.goes_on(1_000).await;
    server.stop(StopMode::Immediate);
    // Some answers were still on their way although their records were committed: up to one packet of each tracker.
    fleet.goes_on(3_500).await;
    process.kill();
    // Started while the database is down, and killed again.
    let process = ODOGRAPH.serve(&database.url(), &address.to_string(), &own);
    fleet.goes_on(1_000).await;
    assert!(conserved(process.admin).await >= 3_000, "found in the journal");
    process.kill();
    let process = ODOGRAPH.serve(&database.url(), &address.to_string(), &own);
    server.start();
    fleet.goes_on(1_000).await;
    let reports = fleet.stop().await;
    process.settled().await;
    conserved(process.admin).await;
    assert_eq!(process.terminate(), Some(0));
    is_clean(&database, &reports, 4_000).await;
}

#[tokio::test]
async fn another_number_of_lanes_goes_on_where_the_slowest_was() {
    let server = PrivateServer::new("lanes");
    let database = TestDatabase::postgres_in(&server.url).await;
    let directory = tempfile::tempdir().unwrap();
    let own = ("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap());
    let mut address = "127.0.0.1:0".to_owned();
    let mut fleet: Option<Fleet> = None;
    for lanes in ["2", "3", "1", "4"] {
        let process = ODOGRAPH.serve(&database.url(), &address, &[own, ("ODOGRAPH_LANES", lanes)]);
        address = process.trackers.to_string();
        let fleet = fleet.get_or_insert_with(|| Fleet::start(process.trackers, 40));
        fleet.goes_on(2_000).await;
        let lanes_there = async || {
            // The rows of an earlier id stay. The journal takes a new one here where only some lanes had committed since
            // the last start: no tag vouches for all of them then.
            let of_this_journal = "SELECT DISTINCT lanes FROM ingest_checkpoints WHERE journal_id = \
                (SELECT journal_id FROM ingest_checkpoints ORDER BY updated_at DESC LIMIT 1)";
            let rows = database.rows(of_this_journal).await;
            (rows.len() == 1 && rows[0]["lanes"] == lanes.parse::<u64>().unwrap()).then_some(())
        };
        eventually("the checkpoints of these lanes", lanes_there).await;
        // Leave a backlog for the next start.
        server.stop(StopMode::Immediate);
        fleet.goes_on(1_000).await;
        process.kill();
        server.start();
    }
    let process = ODOGRAPH.serve(&database.url(), &address, &[own]);
    let fleet = fleet.unwrap();
    fleet.goes_on(1_000).await;
    let reports = fleet.stop().await;
    process.settled().await;
    assert_eq!(process.terminate(), Some(0));
    is_clean(&database, &reports, 9_000).await;
}

#[tokio::test]
async fn a_full_journal_holds_the_trackers_and_ends_by_itself() {
    let server = PrivateServer::new("full");
    let database = TestDatabase::postgres_in(&server.url).await;
    let service = Service::start(&database.url(), &[("ODOGRAPH_JOURNAL_MAX_SIZE", "1MiB")]).await;
    let admin = service.admin;
    let fleet = Fleet::start(service.trackers, 50);
    for _ in 0..2 {
        fleet.goes_on(500).await;
        server.stop(StopMode::Immediate);
        let full = async || {
            let (status, ready, reasons) = readiness(admin).await;
            (status == 503 && !ready && reasons.contains(&"journal_full".to_owned())).then_some(())
        };
        eventually("the journal to be full", full).await;
        conserved(admin).await;
        server.start();
        fleet.goes_on(5_000).await;
    }
    eventually("readiness", async || readiness(admin).await.2.is_empty().then_some(())).await;
    let reports = fleet.stop().await;
    service.settled().await;
    service.stop().await;
    is_clean(&database, &reports, 8_000).await;
}

#[tokio::test]
async fn a_stop_with_a_backlog_succeeds_and_the_next_start_goes_on() {
    for devices in [0, 30] {
        let server = PrivateServer::new("backlog");
        let database = TestDatabase::postgres_in(&server.url).await;
        let directory = tempfile::tempdir().unwrap();
        let own = [("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap()), ("ODOGRAPH_SHUTDOWN_GRACE", "3s")];
        let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &own);
        let address = process.trackers.to_string();
        let mut idle = Tracker::login(process.trackers, &imei(1).to_string()).await;
        let fleet = (devices > 0).then(|| Fleet::start(process.trackers, devices));
        if let Some(fleet) = &fleet {
            fleet.goes_on(500).await;
            server.stop(StopMode::Immediate);
            fleet.goes_on(500).await;
        }
        assert_eq!(process.terminate(), Some(0), "a backlog is not a failure");
        assert!(idle.is_closed_unanswered().await, "the service closes an idle tracker's connection");
        if let Some(fleet) = fleet {
            server.start();
            let process = ODOGRAPH.serve(&database.url(), &address, &own);
            fleet.goes_on(500).await;
            let reports = fleet.stop().await;
            process.settled().await;
            assert_eq!(process.terminate(), Some(0));
            is_clean(&database, &reports, 1_000).await;
        }
    }
}

#[tokio::test]
async fn a_full_disk_holds_the_trackers_and_ends_by_itself() {
    let Some(disk) = SmallDisk::new(2 << 20) else { return };
    let server = PrivateServer::new("disk");
    let database = TestDatabase::postgres_in(&server.url).await;
    let directory = disk.path();
    let own = [("ODOGRAPH_DATA_DIR", directory.to_str().unwrap()), ("ODOGRAPH_JOURNAL_MAX_SIZE", "8MiB")];
    let service = Service::start(&database.url(), &own).await;
    let admin = service.admin;
    server.stop(StopMode::Immediate);
    let fleet = Fleet::start(service.trackers, 50);
    let full = async || readiness(admin).await.2.contains(&"journal_full".to_owned()).then_some(());
    eventually("the disk to be full", full).await;
    conserved(admin).await;
    // The disk gets room while the database is still down.
    disk.grow(64 << 20);
    fleet.goes_on(2_000).await;
    server.start();
    fleet.goes_on(2_000).await;
    let reports = fleet.stop().await;
    service.settled().await;
    eventually("readiness", async || readiness(admin).await.2.is_empty().then_some(())).await;
    service.stop().await;
    is_clean(&database, &reports, 4_000).await;
}

#[tokio::test]
async fn a_stop_with_a_full_journal_ends_in_time() {
    let server = PrivateServer::new("fullstop");
    let database = TestDatabase::postgres_in(&server.url).await;
    let more = [("ODOGRAPH_JOURNAL_MAX_SIZE", "1MiB"), ("ODOGRAPH_SHUTDOWN_GRACE", "1s")];
    let service = Service::start(&database.url(), &more).await;
    let admin = service.admin;
    let fleet = Fleet::start(service.trackers, 50);
    fleet.goes_on(500).await;
    server.stop(StopMode::Immediate);
    let full = async || readiness(admin).await.2.contains(&"journal_full".to_owned()).then_some(());
    eventually("the journal to be full", full).await;
    let stopped = tokio::time::timeout(Duration::from_secs(8), service.stop()).await;
    assert!(stopped.expect("it stops in time").waiting > 0);
    fleet.stop().await;
}

#[tokio::test]
async fn one_process_per_data_directory_and_the_second_says_so() {
    let database = TestDatabase::postgres().await;
    let directory = tempfile::tempdir().unwrap();
    let own = [("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())];
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &own);
    let mut second = Command::new(ODOGRAPH.path());
    second.arg("serve").env("DATABASE_URL", database.url()).envs(own);
    second.env("ODOGRAPH_LISTEN", "127.0.0.1:0").env("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0");
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another process has this journal open"), "{said}");
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T, 1)])).await, 1, "the first one goes on");
}

#[tokio::test]
async fn a_stop_with_waiting_messages_says_so() {
    let server = PrivateServer::new("messages");
    let (database, data) = (TestDatabase::postgres_in(&server.url).await, tempfile::tempdir().unwrap());
    let own = ("ODOGRAPH_DATA_DIR", data.path().to_str().unwrap());
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[own]);
    process.is_ready().await;
    server.stop(StopMode::Immediate);
    process.names_reason("store_down").await;
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    tracker.send(&framed(&[&[0x0C, 1, 6][..], &5_u32.to_be_bytes(), b"DI1:1", &[1]].concat())).await;
    let lag = async || (count(process.admin, "odograph_drain_lag_bytes").await > 0).then_some(());
    eventually("the message to be in the journal", lag).await;
    assert_eq!(count(process.admin, "odograph_records_waiting").await, 0, "a message is no record");
    let lines = process.terminate_and_read();
    assert!(lines.iter().any(|line| line.contains("keep the data directory")), "{lines:?}");
}
