//! A journal and a database that do not match: one of them went back, was copied, or lost a part. And a wrong clock.
//! Acknowledged records still reach the database, once, and the operator sees the problem.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use odograph_journal::{EntryKind, Files, Journal, Limits, NewEntry, Options, RecoveryMode};
use odograph_testkit::{
    ServiceProcess, TestDatabase, Tracker, count, eventually, eventually_within, frame, imei, readiness, record,
};

use crate::ODOGRAPH;

const T: u64 = 1_780_000_000_000;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args(["-a", from.to_str().unwrap(), to.to_str().unwrap()]).status().unwrap().success());
}

/// Starts a service, delivers records of these seconds, waits until they are stored, and stops it.
async fn deliver(database: &TestDatabase, directory: &Path, seconds: std::ops::Range<u64>) {
    let process = start(database, directory);
    send(&process, seconds).await;
    process.settled().await;
    assert_eq!(process.terminate(), Some(0));
}

fn start(database: &TestDatabase, directory: &Path) -> ServiceProcess {
    start_with(database, directory, &[])
}

fn start_with(database: &TestDatabase, directory: &Path, arguments: &[&'static str]) -> ServiceProcess {
    let own = [("ODOGRAPH_DATA_DIR", directory.to_str().unwrap()), ("ODOGRAPH_JOURNAL_MAX_SIZE", "1MiB")];
    ODOGRAPH.serve_with(arguments, &database.url(), "127.0.0.1:0", &own)
}

/// Delivers from several devices, so that every lane has its share.
async fn send(process: &ServiceProcess, seconds: std::ops::Range<u64>) {
    for second in seconds {
        let mut tracker = Tracker::login(process.trackers, &imei(second % 7).to_string()).await;
        assert_eq!(tracker.deliver(&frame(&[record(T + second * 1000, 1)])).await, 1);
    }
}

async fn seconds(database: &TestDatabase) -> Vec<u64> {
    let rows = database.all_positions().await;
    let mut seconds: Vec<u64> = rows.iter().map(|row| (row["ts_ms"].as_u64().unwrap() - T) / 1000).collect();
    seconds.sort_unstable();
    seconds
}

async fn ids(database: &TestDatabase) -> usize {
    database.rows("SELECT DISTINCT journal_id FROM ingest_checkpoints").await.len()
}

#[tokio::test]
async fn a_database_restored_from_an_older_backup_is_filled_again_from_the_journal() {
    for restart in [false, true] {
        let (database, directory) = (TestDatabase::postgres().await, tempfile::tempdir().unwrap());
        let process = start(&database, directory.path());
        send(&process, 0..10).await;
        process.settled().await;
        // A backup like a dump: rows and checkpoints of one moment.
        database.execute("CREATE TABLE a AS SELECT * FROM positions; CREATE TABLE b AS SELECT * FROM ingest_checkpoints; CREATE TABLE c AS SELECT * FROM latest_positions").await;
        send(&process, 10..30).await;
        process.settled().await;
        let older = "BEGIN; DELETE FROM positions; DELETE FROM ingest_checkpoints; DELETE FROM latest_positions;
            INSERT INTO positions SELECT * FROM a; INSERT INTO ingest_checkpoints SELECT * FROM b;
            INSERT INTO latest_positions SELECT * FROM c; COMMIT";
        let process = if restart {
            assert_eq!(process.terminate(), Some(0));
            database.execute(older).await;
            start(&database, directory.path())
        } else {
            database.execute(older).await;
            process
        };
        send(&process, 30..31).await;
        eventually("everything to be there", async || {
            (seconds(&database).await == (0..31).collect::<Vec<_>>()).then_some(())
        })
        .await;
        process.settled().await;
        assert!(count(process.admin, "odograph_records_recovered_total").await >= 20, "counted again");
        assert_eq!(count(process.admin, "odograph_journal_gap_bytes_total").await, 0);
        let newest = async || {
            let rows = database.table("latest_positions").await;
            rows.iter().any(|row| row["ts_ms"] == T + 30_000).then_some(())
        };
        eventually("the latest position", newest).await;
        assert_eq!(process.terminate(), Some(0));
        assert_eq!(ids(&database).await, 1, "it is still the same journal");
    }
}

#[tokio::test]
async fn a_journal_restored_from_a_copy_takes_a_new_id_and_loses_nothing() {
    let (database, directory) = (TestDatabase::postgres().await, tempfile::tempdir().unwrap());
    let (data, kept) = (directory.path().join("data"), directory.path().join("copy"));
    deliver(&database, &data, 0..5).await;
    copy(&data, &kept);
    deliver(&database, &data, 5..10).await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&kept, &data);
    deliver(&database, &data, 10..15).await;
    assert_eq!(seconds(&database).await, (0..15).collect::<Vec<_>>());
    assert_eq!(ids(&database).await, 2);
}

#[tokio::test]
async fn a_copied_journal_next_to_the_original_gets_its_turn_and_both_deliver_everything() {
    let (database, directory) = (TestDatabase::postgres().await, tempfile::tempdir().unwrap());
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    deliver(&database, &first, 0..5).await;
    copy(&first, &second);
    let owner = start(&database, &first);
    send(&owner, 5..10).await;
    owner.settled().await;
    // The original holds the lanes: the copy accepts records from its trackers, and cannot write yet.
    let clone = start(&database, &second);
    send(&clone, 10..15).await;
    let fenced = async || readiness(clone.admin).await.2.contains(&"journal_fenced".to_owned()).then_some(());
    eventually_within(Duration::from_secs(90), "readiness to name it", fenced).await;
    send(&owner, 15..20).await;
    owner.settled().await;
    assert_eq!(owner.terminate(), Some(0));
    clone.settled().await;
    eventually("readiness", async || readiness(clone.admin).await.2.is_empty().then_some(())).await;
    assert_eq!(clone.terminate(), Some(0));
    assert_eq!(seconds(&database).await, (0..20).collect::<Vec<_>>());
    assert_eq!(ids(&database).await, 2);
}

#[tokio::test]
async fn kills_right_after_segments_were_released_leave_a_journal_that_opens() {
    let (database, directory) = (TestDatabase::postgres().await, tempfile::tempdir().unwrap());
    let own = [
        ("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap()),
        ("ODOGRAPH_JOURNAL_MAX_SIZE", "1MiB"),
        ("ODOGRAPH_JOURNAL_KEEP", "0s"),
    ];
    for round in 0..4 {
        let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &own);
        if round % 2 == 0 {
            send(&process, round * 10..round * 10 + 10).await;
        }
        process.settled().await;
        let admin = process.admin;
        let given_away = async || {
            (count(admin, "odograph_drain_lag_bytes").await == 0
                && count(admin, "odograph_journal_bytes{state=\"kept\"}").await < 8192)
                .then_some(())
        };
        eventually("everything to be released", given_away).await;
        process.kill();
    }
    assert_eq!(seconds(&database).await.len(), 20);
}

#[tokio::test]
async fn a_gap_is_an_alarm_until_the_operator_accepts_it() {
    let (database, directory) = (TestDatabase::postgres().await, tempfile::tempdir().unwrap());
    let process = start(&database, directory.path());
    // More records than the journal keeps.
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    for second in 0..400 {
        let records: Vec<_> = (0..100).map(|n| record(T + second * 1000 + n, 1)).collect();
        assert_eq!(tracker.deliver(&frame(&records)).await, 100);
    }
    process.settled().await;
    assert!(count(process.admin, "odograph_journal_keep_shortened_total").await > 0);
    assert_eq!(process.terminate(), Some(0));
    // A backup from before the first record.
    database
        .execute("DELETE FROM positions; UPDATE ingest_checkpoints SET position = 0, tag = 0, latest_position = 0")
        .await;

    let process = start(&database, directory.path());
    let gap = async || (readiness(process.admin).await == (200, true, vec!["journal_gap".into()])).then_some(());
    eventually("the alarm", gap).await;
    let admin = process.admin;
    let recovers = async || (count(admin, "odograph_records_recovered_total").await > 0).then_some(());
    eventually("the kept entries to be drained again", recovers).await;
    process.settled().await;
    let refilled = database.positions().await;
    assert!((1..40_000).contains(&refilled), "the kept entries are drained: {refilled}");
    assert!(count(process.admin, "odograph_journal_gap_bytes_total").await > 0);
    send(&process, 500..501).await;
    process.settled().await;
    assert_eq!(process.terminate(), Some(0));

    let process = start(&database, directory.path());
    assert_eq!(readiness(process.admin).await, (200, true, vec!["journal_gap".into()]), "not forgotten");
    assert_eq!(process.terminate(), Some(0));
    for arguments in [&["--accept-gap"][..], &[]] {
        let process = start_with(&database, directory.path(), arguments);
        assert_eq!(readiness(process.admin).await, (200, true, vec![]));
        assert_eq!(process.terminate(), Some(0));
    }
}

#[tokio::test]
async fn with_a_clock_well_before_the_journal_the_drain_waits_and_trackers_do_not() {
    let (database, directory) = (TestDatabase::sqlite(), tempfile::tempdir().unwrap());
    // An entry of the next hour, as after a clock was set back.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    let later_us = i64::try_from(now).unwrap() + 3_600_000_000;
    let files = Files::new(&directory.path().join("journal")).unwrap();
    let options = Options { limits: Limits::new(1 << 20, Duration::ZERO).unwrap(), recovery: RecoveryMode::Strict };
    let (journal, _) = Journal::open(Arc::new(files), options, Box::new(|_| {})).unwrap();
    let bytes = frame(&[record(T, 1)]);
    let bytes = &bytes[8..bytes.len() - 4];
    let entry = NewEntry { kind: EntryKind::Frame, imei: imei(2), received_at_us: later_us, records: 1, bytes };
    journal.appender().append(entry).await.unwrap().await.unwrap();
    journal.close().unwrap();

    let process = start(&database, directory.path());
    eventually("readiness to name it", async || {
        (readiness(process.admin).await == (200, true, vec!["clock".into()])).then_some(())
    })
    .await;
    send(&process, 1..3).await;
    assert_eq!(count(process.admin, "odograph_records_waiting").await, 3);
    assert_eq!(database.positions().await, 0);
    assert_eq!(process.terminate(), Some(0));
    let process = start_with(&database, directory.path(), &["--accept-clock"]);
    process.settled().await;
    assert_eq!(readiness(process.admin).await, (200, true, vec![]));
    assert_eq!(database.positions().await, 3);
}
