//! Admission of registered devices only: which trackers get in, which are refused, and how soon a
//! change of the table counts.

use std::time::{Duration, Instant};

use odograph::store::{DatabaseUrl, DeviceTable, ErrorClass};
use odograph_testkit::{
    Service, TestDatabase, Tracker, count, eventually, frame, imei, metric, readiness, record, server_url,
    service::AFTER_COMMIT,
};
use serde_json::Value as Json;
use teltonika_codecs::encode;

use crate::admission_setup::{
    closed, devices, is_told_no, knows, register, reloads, remove, said, serve, with_devices,
};

const T: u64 = 1_780_000_000_000;
/// Well below the timer of a table that notifies of its changes, which is a minute.
const BEFORE_THE_TIMER: Duration = Duration::from_secs(20);

async fn timescale(imeis: &[u64]) -> TestDatabase {
    let imeis: Vec<_> = imeis.iter().map(|number| imei(*number)).collect();
    with_devices(TestDatabase::postgres_empty(&server_url()).await, &imeis).await
}

#[tokio::test]
async fn a_registered_tracker_is_served_and_an_unknown_one_is_refused() {
    for more in [&[][..], &[AFTER_COMMIT]] {
        let database = timescale(&[1]).await;
        let directory = tempfile::tempdir().unwrap();
        let process = serve(&database, directory.path(), more);
        let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
        assert_eq!(tracker.deliver(&frame(&[record(T, 1)])).await, 1);
        // A frame after the refused login is not taken either.
        let mut stranger = Tracker::connect(process.trackers).await;
        stranger.send(&[&encode::login(imei(2))[..], &frame(&[record(T, 1)])].concat()).await;
        assert_eq!(stranger.receive::<1>().await.unwrap(), [0]);
        assert!(stranger.is_closed_unanswered().await);
        assert_eq!(tracker.deliver(&frame(&[record(T + 1000, 1)])).await, 1, "others go on");
        process.settled().await;
        assert_eq!(database.positions().await, 2);
        let admin = process.admin;
        for (result, times) in [("accepted", 1), ("unknown", 1), ("admission_unknown", 0), ("refused", 0)] {
            assert_eq!(count(admin, &format!("odograph_logins_total{{result=\"{result}\"}}")).await, times, "{result}");
        }
        closed(admin, "unknown_device", 1).await;
        assert_eq!(readiness(admin).await, (200, true, vec![]));
        assert!(metric(admin, "odograph_admission_list_age_seconds").await < 60.0);
        let logs = process.logs().join("\n");
        assert!(!logs.contains(&imei(2).to_string()) && !logs.contains(&imei(1).to_string()), "{logs}");
        assert_eq!(process.terminate(), Some(0));
    }
}

#[tokio::test]
async fn without_the_setting_every_tracker_is_admitted() {
    let database = timescale(&[1]).await;
    let service = Service::start(&database.url(), &[]).await;
    Tracker::login(service.trackers, &imei(2).to_string()).await;
    assert_eq!(count(service.admin, "odograph_admission_devices").await, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_change_of_the_table_is_noticed_long_before_the_timer() {
    let database = timescale(&[1]).await;
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[]);
    let admin = process.admin;
    is_told_no(process.trackers, imei(2)).await;
    let begun = Instant::now();
    register(&database, imei(2)).await;
    knows(admin, 2).await;
    Tracker::login(process.trackers, &imei(2).to_string()).await;
    // The connection broke: the service connects and listens again.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND query LIKE 'SELECT imei::text FROM devices%'";
    database.execute(cut).await;
    let again = async || (reloads(admin, "unchanged").await >= 1).then_some(());
    eventually("the table to be read again", again).await;
    remove(&database, imei(1)).await;
    knows(admin, 1).await;
    is_told_no(process.trackers, imei(1)).await;
    assert!(begun.elapsed() < BEFORE_THE_TIMER, "{:?}", begun.elapsed());
    assert_eq!(reloads(admin, "changed").await, 3);
    assert_eq!(readiness(admin).await, (200, true, vec![]));
}

#[tokio::test]
async fn without_a_trigger_the_timer_finds_out() {
    // A table made by another program, with any kind of text.
    let database = TestDatabase::postgres().await;
    database.execute("CREATE TABLE devices (id serial PRIMARY KEY, imei varchar(255) UNIQUE)").await;
    database.execute("INSERT INTO devices (imei) VALUES ('none'), (NULL), (' 490000000000001'), ('1')").await;
    register(&database, imei(1)).await;
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[]);
    knows(process.admin, 1).await;
    assert_eq!(count(process.admin, "odograph_admission_ignored_rows").await, 4);
    let said = |text: &str| process.logs().iter().filter(|line| line.contains(text)).count();
    assert_eq!((said("not 15 digits"), said("no trigger reports")), (1, 1));
    register(&database, imei(2)).await;
    knows(process.admin, 2).await;
    Tracker::login(process.trackers, &imei(2).to_string()).await;
    assert_eq!((said("not 15 digits"), said("no trigger reports")), (1, 1), "said once");
}

#[tokio::test]
async fn sqlite_knows_its_devices_by_the_timer() {
    let database = with_devices(TestDatabase::sqlite(), &[imei(1)]).await;
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[]);
    let mut idle = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(idle.deliver(&frame(&[record(T, 1)])).await, 1);
    is_told_no(process.trackers, imei(2)).await;
    register(&database, imei(2)).await;
    knows(process.admin, 2).await;
    Tracker::login(process.trackers, &imei(2).to_string()).await;
    remove(&database, imei(1)).await;
    assert!(idle.is_closed_unanswered().await);
    closed(process.admin, "device_removed", 1).await;
    assert_eq!(database.positions().await, 1);
}

#[tokio::test]
async fn a_removed_device_is_closed_on_every_socket_although_it_is_idle() {
    let database = timescale(&[1, 2]).await;
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[]);
    let mut older = Tracker::login(process.trackers, &imei(1).to_string()).await;
    let mut newer = Tracker::login(process.trackers, &imei(1).to_string()).await;
    let mut other = Tracker::login(process.trackers, &imei(2).to_string()).await;
    assert_eq!(older.deliver(&frame(&[record(T, 1)])).await, 1);
    assert_eq!(newer.deliver(&frame(&[record(T + 1000, 1)])).await, 1);
    let begun = Instant::now();
    remove(&database, imei(1)).await;
    assert!(older.is_closed_unanswered().await && newer.is_closed_unanswered().await);
    assert!(begun.elapsed() < BEFORE_THE_TIMER, "{:?}", begun.elapsed());
    closed(process.admin, "device_removed", 2).await;
    assert_eq!(other.deliver(&frame(&[record(T, 1)])).await, 1, "another device stays");
    is_told_no(process.trackers, imei(1)).await;
    process.settled().await;
    assert_eq!(database.positions().await, 3, "acknowledged records are stored");
}

#[tokio::test]
async fn what_was_handed_over_before_the_removal_is_still_acknowledged_and_nothing_after_it_is_taken() {
    let database = timescale(&[1]).await;
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[AFTER_COMMIT]);
    let admin = process.admin;
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    let lock = database.connect_postgres().await;
    lock.batch_execute("BEGIN; LOCK TABLE positions IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    tracker.send(&frame(&[record(T, 1)])).await;
    let waiting = async || (count(admin, "odograph_records_waiting").await == 1).then_some(());
    eventually("the frame to wait for its commit", waiting).await;
    remove(&database, imei(1)).await;
    knows(admin, 0).await;
    tracker.send(&frame(&[record(T + 1000, 1)])).await;
    lock.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(tracker.receive::<4>().await.unwrap(), [0, 0, 0, 1]);
    assert!(tracker.is_closed_unanswered().await);
    closed(admin, "device_removed", 1).await;
    process.settled().await;
    assert_eq!(database.positions().await, 1);
}

#[tokio::test]
async fn a_table_that_is_gone_or_too_long_says_nothing_about_who_is_registered() {
    let database = timescale(&[1]).await;
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[]);
    let admin = process.admin;
    let mut open = Tracker::login(process.trackers, &imei(1).to_string()).await;
    database.execute("ALTER TABLE devices RENAME TO put_aside; NOTIFY devices").await;
    let refused = async || (reloads(admin, "refused").await >= 2).then_some(());
    eventually("two attempts to read it", refused).await;
    assert_eq!(open.deliver(&frame(&[record(T, 1)])).await, 1);
    Tracker::login(process.trackers, &imei(1).to_string()).await;
    is_told_no(process.trackers, imei(2)).await;
    assert_eq!(readiness(admin).await, (200, true, vec![]));
    let said = |text: &str| process.logs().iter().filter(|line| line.contains(text)).count();
    assert_eq!(said("keeping the last known list of devices"), 1);
    database.execute("ALTER TABLE put_aside RENAME TO devices").await;
    let read = async || (said("can be read again") == 1).then_some(());
    eventually("the table to be read again", read).await;

    register(&database, imei(2)).await;
    for database in [&database, &with_devices(TestDatabase::sqlite(), &[imei(1), imei(2)]).await] {
        let mut table = DeviceTable::new(&DatabaseUrl::parse(&database.url()).unwrap());
        assert_eq!(table.read(2).await.unwrap().imeis.len(), 2);
        let error = table.read(1).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Refuses);
        assert!(error.source.to_string().contains("more than 1 rows"), "{}", error.source);
    }
}

#[tokio::test]
async fn an_empty_table_admits_nobody_and_says_so() {
    let database = timescale(&[1]).await;
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[]);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    database.execute("TRUNCATE devices").await;
    assert!(tracker.is_closed_unanswered().await);
    is_told_no(process.trackers, imei(1)).await;
    let loud = |line: &String| line.contains("WARN") && line.contains("no tracker is admitted");
    eventually("a warning", async || process.logs().iter().any(loud).then_some(())).await;
    assert_eq!(readiness(process.admin).await, (200, true, vec![]), "an empty table is valid");
}

#[tokio::test]
async fn a_storm_of_unknown_devices_costs_no_queries_and_delays_no_tracker() {
    const STRANGERS: u64 = 10_000;
    let database = timescale(&[1]).await;
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&database, directory.path(), &[]);
    let (target, admin, begun) = (process.trackers, process.admin, Instant::now());
    let storms = (0..20).map(|storm| {
        tokio::spawn(async move {
            for number in 0..STRANGERS / 20 {
                let mut stranger = Tracker::connect(target).await;
                stranger.send(&encode::login(imei(1_000_000 + storm * 10_000 + number))).await;
                assert_eq!(stranger.receive::<1>().await.unwrap(), [0]);
            }
        })
    });
    let storms: Vec<_> = storms.collect();
    let mut tracker = Tracker::login(target, &imei(1).to_string()).await;
    let mut frames = 0;
    while storms.iter().any(|storm| !storm.is_finished()) {
        assert_eq!(tracker.deliver(&frame(&[record(T + frames * 1000, 1)])).await, 1);
        frames += 1;
    }
    for storm in storms {
        storm.await.unwrap();
    }
    assert!(frames > 20, "{frames} frames were delivered meanwhile");
    assert_eq!(count(admin, "odograph_logins_total{result=\"unknown\"}").await, STRANGERS);
    // One at the start, and one a minute.
    let most = 2 + begun.elapsed().as_secs() / 60;
    let mut all = 0;
    for result in ["changed", "unchanged", "unavailable", "refused"] {
        all += reloads(admin, result).await;
    }
    assert!((1..=most).contains(&all), "{all} reloads");
    process.settled().await;
    assert_eq!(database.positions().await, frames);
    assert_eq!(process.terminate(), Some(0));
    // The server's own count, which a session updates when it ends. Creating the table scans it a few times.
    let scans = "SELECT seq_scan + coalesce(idx_scan, 0) AS n FROM pg_stat_user_tables WHERE relname = 'devices'";
    let seen = async || database.rows(scans).await[0]["n"].as_u64().filter(|scans| *scans > 0);
    let scans = eventually("the server's count of scans", seen).await;
    assert!(scans < most + 20, "{scans} scans of the table");
    let listed = said(&devices(directory.path(), &["unknown", "--json"])).0;
    assert_eq!(listed.lines().count(), 1_000, "the list of unknown devices is bounded");
}

#[tokio::test]
async fn the_operator_sees_who_was_refused_and_who_is_known() {
    let database = timescale(&[1, 3]).await;
    let directory = tempfile::tempdir().unwrap();
    let nothing = devices(directory.path(), &["known"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(said(&nothing).1.contains("no list of devices in "), "{nothing:?}");
    assert!(said(&devices(directory.path(), &["unknown"])).1.contains("no device was refused"));

    let process = serve(&database, directory.path(), &[]);
    is_told_no(process.trackers, imei(2)).await;
    is_told_no(process.trackers, imei(4)).await;
    is_told_no(process.trackers, imei(2)).await;
    // Next to the running service.
    let written = async || (said(&devices(directory.path(), &["unknown"])).0.lines().count() == 3).then_some(());
    eventually("the list of unknown devices", written).await;
    let (known, refused) = (imei(1).to_string(), imei(2).to_string());
    let answer = devices(directory.path(), &["known", &known, &refused]);
    assert_eq!(answer.status.code(), Some(1), "one may not log in");
    assert_eq!(said(&answer).0, format!("{known} known\n{refused} unknown\n"));
    let all = devices(directory.path(), &["known"]);
    assert_eq!((all.status.code(), said(&all).0), (Some(0), format!("{known}\n{}\n", imei(3))));
    assert!(said(&all).1.contains("2 devices, last read from the database at 20"), "{all:?}");
    assert_eq!(devices(directory.path(), &["known", "17"]).status.code(), Some(2), "not an IMEI");

    // The latest entries survive the end of the service, and the next one counts on.
    is_told_no(process.trackers, imei(2)).await;
    assert_eq!(process.terminate(), Some(0));
    let process = serve(&database, directory.path(), &[]);
    is_told_no(process.trackers, imei(2)).await;
    register(&database, imei(4)).await;
    knows(process.admin, 3).await;
    assert_eq!(process.terminate(), Some(0));
    let output = devices(directory.path(), &["unknown", "--json"]);
    let lines: Vec<Json> = said(&output).0.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "a device registered since is not listed: {lines:?}");
    assert_eq!((&lines[0]["imei"], &lines[0]["attempts"]), (&refused.into(), &4.into()));
    assert_eq!(lines[0]["address"], "127.0.0.1");
    assert!(lines[0]["first"].as_str().unwrap() <= lines[0]["last"].as_str().unwrap());
    let table = said(&devices(directory.path(), &["unknown"]));
    assert!(table.0.starts_with("IMEI ") && table.1.contains("INSERT INTO devices"), "{table:?}");
}
