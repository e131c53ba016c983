//! Replay next to a running service: rows become what today's program decodes, and nothing else
//! changes.

use odograph_testkit::{TestDatabase, eventually, imei};
use serde_json::json;
use teltonika_codecs::encode::NewRecord;

use crate::ODOGRAPH;
use crate::replay_setup::{Setup, T, counts, result, rich, seconds, stderr};

#[tokio::test]
async fn a_corrected_mapping_reaches_timescaledb() {
    let yesterday =
        "UPDATE TABLE SET io = io || '{\"239\":1}', ignition = NULL, battery_voltage_mv = external_voltage_mv";
    a_corrected_mapping_reaches_stored_rows(TestDatabase::postgres().await, yesterday).await;
}

#[tokio::test]
async fn a_corrected_mapping_reaches_sqlite() {
    let yesterday = "UPDATE TABLE SET io = json_set(io, '$.239', 1), ignition = NULL, \
                     battery_voltage_mv = external_voltage_mv";
    a_corrected_mapping_reaches_stored_rows(TestDatabase::sqlite(), yesterday).await;
}

/// `yesterday` changes rows to those of a program without a column for element 239 and with two columns for element 66.
async fn a_corrected_mapping_reaches_stored_rows(database: TestDatabase, yesterday: &str) {
    let setup = Setup::start(database, &[]);
    for device in 1..=3 {
        setup.send(device, &(0..20).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    }
    let newest = async || (setup.database.table("latest_positions").await.len() == 3).then_some(());
    eventually("the latest positions", newest).await;
    let faulty = "UPDATE positions SET faulty = TRUE \
                  WHERE imei = IMEI AND fingerprint <> (SELECT fingerprint FROM latest_positions WHERE imei = IMEI)";
    setup.database.execute(&faulty.replace("IMEI", &imei(2).get().to_string())).await;
    let today = (setup.database.all_positions().await, setup.database.table("latest_positions").await);
    for table in ["positions", "latest_positions"] {
        setup.database.execute(&yesterday.replace("TABLE", table)).await;
    }
    let before = setup.database.all_positions().await;
    assert_ne!(before, today.0);
    assert_eq!(before.iter().filter(|row| row["faulty"] == 1).count(), 19);

    setup.send(1, &(0..20).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    let dry = setup.replay(&["--dry-run"]);
    assert_eq!(counts(&dry), [0, 60, 20, 0], "resent records change once");
    assert_eq!(result(&dry)["columns"], json!({"ignition": 60, "io": 60, "battery_voltage_mv": 60}));
    assert!(stderr(&dry).contains("battery_voltage_mv 12000 → null"), "{}", stderr(&dry));
    assert_eq!(setup.database.all_positions().await, before, "nothing was changed");

    assert_eq!(counts(&setup.replay(&[])), [0, 60, 20, 0]);
    assert_eq!(setup.database.all_positions().await, today.0, "also faulty and received_at");
    assert_eq!(setup.database.table("latest_positions").await, today.1);
    assert_eq!(counts(&setup.replay(&[])), [0, 0, 80, 0], "run again, it finds nothing to do");
    assert_eq!(setup.process.terminate(), Some(0));
}

#[tokio::test]
async fn deleted_rows_come_back_with_their_flags_in_timescaledb() {
    let flag = "INSERT INTO position_flag_ledger (flag_id, seq, imei, ts_from, ts_to, faulty, deleted, applied_seq) \
                VALUES ('6f1c1c0e-4a53-4bb4-9a3e-3f4c9d0f7b11', 1, :imei, to_timestamp(:from / 1000.0), \
                    to_timestamp(:to / 1000.0), true, false, 1)";
    deleted_rows_come_back_with_their_flags(TestDatabase::postgres().await, flag).await;
}

#[tokio::test]
async fn deleted_rows_come_back_with_their_flags_in_sqlite() {
    let flag = "INSERT INTO position_flag_ledger (flag_id, seq, version, imei, ts_from, ts_to, faulty, deleted, applied_seq) \
                VALUES (x'6f1c1c0e4a534bb49a3e3f4c9d0f7b11', 1, 1, :imei, :from, :to, 1, 0, 1)";
    deleted_rows_come_back_with_their_flags(TestDatabase::sqlite(), flag).await;
}

async fn deleted_rows_come_back_with_their_flags(database: TestDatabase, flag: &str) {
    let setup = Setup::start(database, &[]);
    setup.send(1, &(0..10).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    let before = setup.database.all_positions().await;
    setup.database.execute("DELETE FROM positions").await;
    setup.database.execute("DELETE FROM latest_positions").await;
    let flag = flag.replace(":imei", &imei(1).get().to_string());
    let flag = flag.replace(":from", &(T + 7000).to_string()).replace(":to", &(T + 60_000).to_string());
    setup.database.execute(&flag).await;

    assert_eq!(counts(&setup.replay(&["--dry-run"])), [10, 0, 0, 0]);
    assert_eq!(setup.database.positions().await, 0);
    assert_eq!(counts(&setup.replay(&[])), [10, 0, 0, 0]);
    let rows = setup.database.all_positions().await;
    let faulty: Vec<_> = rows.iter().filter(|row| row["faulty"] == 1).cloned().collect();
    assert_eq!(seconds(&faulty), [7, 8, 9]);
    let mut without = before.clone();
    without.iter_mut().skip(7).for_each(|row| drop(row.insert("faulty".into(), 1.into())));
    assert_eq!(rows, without, "received when they first came");
    assert_eq!(seconds(&setup.database.table("latest_positions").await), [6], "the latest that is not faulty");
    setup.process.kill();
}

#[tokio::test]
async fn what_a_narrow_window_quarantined_becomes_rows_in_timescaledb() {
    what_a_narrow_window_quarantined_becomes_rows(TestDatabase::postgres().await).await;
}

#[tokio::test]
async fn what_a_narrow_window_quarantined_becomes_rows_in_sqlite() {
    what_a_narrow_window_quarantined_becomes_rows(TestDatabase::sqlite()).await;
}

async fn what_a_narrow_window_quarantined_becomes_rows(database: TestDatabase) {
    let narrow = [("ODOGRAPH_TIME_WINDOW_PAST", "2h"), ("ODOGRAPH_TIME_WINDOW_FUTURE", "2h")];
    let setup = Setup::start(database, &narrow);
    setup.send(1, &(0..10).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    let quarantined = async || setup.database.rows("SELECT imei FROM quarantined_records").await.len();
    assert_eq!((setup.database.positions().await, quarantined().await), (0, 10));

    assert_eq!(counts(&setup.replay_with(&[], &narrow)), [0, 0, 0, 10], "still refused");
    assert_eq!((setup.database.positions().await, quarantined().await), (0, 10), "and still there, once each");
    let dry = setup.replay(&["--dry-run"]);
    assert_eq!((counts(&dry), result(&dry)["resolved"].as_u64()), ([10, 0, 0, 0], Some(10)));
    assert_eq!((setup.database.positions().await, quarantined().await), (0, 10));
    let output = setup.replay(&[]);
    assert_eq!((counts(&output), result(&output)["resolved"].as_u64()), ([10, 0, 0, 0], Some(10)));
    assert_eq!((setup.database.positions().await, quarantined().await), (10, 0));
    assert_eq!(seconds(&setup.database.table("latest_positions").await), [9]);
    setup.process.kill();
}

#[tokio::test]
async fn device_and_receive_time_choose_what_is_replayed() {
    let setup = Setup::start(TestDatabase::postgres().await, &[]);
    for device in 1..=2 {
        setup.send(device, &[rich(T), rich(T + 1000)]).await;
    }
    setup.database.execute("DELETE FROM positions").await;
    let device = imei(2).to_string();
    assert_eq!(counts(&setup.replay(&["--to", "1h"])), [0; 4], "all were received later");
    assert_eq!(counts(&setup.replay(&["--from", "1h", "--to", "2126-01-01", "--imei", &device])), [2, 0, 0, 0]);
    assert!(setup.database.all_positions().await.iter().all(|row| row["imei"] == imei(2).get()));
    assert_eq!(counts(&setup.replay(&["--from", "2026-01-01T00:00Z"])), [2, 0, 2, 0]);

    for invalid in [&["--from", "1h", "--to", "2h"][..], &["--from", "yesterday"], &["--imei", "12"], &["--nonsense"]] {
        assert_eq!(setup.replay(invalid).status.code(), Some(2), "{invalid:?}");
    }
    setup.process.kill();
}

#[tokio::test]
async fn without_a_journal_of_this_database_there_is_nothing_to_replay() {
    let database = TestDatabase::postgres().await;
    let empty = tempfile::tempdir().unwrap();
    let (url, place) = (database.url(), empty.path().to_str().unwrap().to_owned());
    let own = [("DATABASE_URL", url.as_str()), ("ODOGRAPH_DATA_DIR", place.as_str())];
    let output = ODOGRAPH.run(&["replay"], &[&own[..], &[("ODOGRAPH_ACK_AFTER", "commit")]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("keeps no journal"), "{}", stderr(&output));
    let output = ODOGRAPH.run(&["replay"], &own);
    assert!(!output.status.success() && stderr(&output).contains("no journal in"), "{}", stderr(&output));

    let setup = Setup::start(TestDatabase::sqlite(), &[]);
    setup.send(1, &[rich(T)]).await;
    let output = setup.replay_with(&[], &[("DATABASE_URL", &url)]);
    assert!(!output.status.success() && stderr(&output).contains("knows nothing of journal"), "{}", stderr(&output));
    let missing = format!("sqlite://{place}/none.sqlite");
    assert!(!setup.replay_with(&[], &[("DATABASE_URL", &missing)]).status.success());
    assert!(!empty.path().join("none.sqlite").exists(), "and no file is created");
    setup.process.kill();
}

#[tokio::test]
async fn what_the_database_refuses_goes_to_quarantine_and_the_others_stand() {
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        let refuse = match &database {
            TestDatabase::Postgres { .. } => {
                "ALTER TABLE positions ADD CONSTRAINT no_rocket CHECK (speed_kmh < 250) NOT VALID"
            }
            TestDatabase::Sqlite { .. } => {
                "CREATE TRIGGER no_rocket BEFORE INSERT ON positions WHEN NEW.speed_kmh >= 250 \
                 BEGIN SELECT RAISE(ABORT, 'no_rocket'); END"
            }
        };
        let setup = Setup::start(database, &[]);
        let fast = NewRecord { speed_kmh: 300, ..rich(T + 5000) };
        setup.send(1, &[rich(T), rich(T + 1000), fast, rich(T + 2000)]).await;
        setup.database.execute("DELETE FROM positions").await;
        setup.database.execute(refuse).await;
        assert_eq!(counts(&setup.replay(&[])), [3, 0, 0, 1]);
        let reasons = setup.database.rows("SELECT reason, seen FROM quarantined_records").await;
        assert_eq!((reasons.len(), &reasons[0]["reason"]), (1, &json!("refused")));
        assert_eq!(counts(&setup.replay(&[])), [0, 0, 3, 1]);
        assert_eq!(setup.database.rows("SELECT seen FROM quarantined_records").await[0]["seen"], 1, "it came once");
        setup.process.kill();
    }
}
