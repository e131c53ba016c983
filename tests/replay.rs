//! Replay beside a running service: what today's program makes of the journal comes to stand, and nothing else changes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Output;

use serde_json::{Map, Value as Json, json};
use sqlx::Connection as _;
use support::database::Database;
use support::service::{Process, command, odograph};
use support::tracker::{Tracker, frame, imei, record};
use teltonika_codecs::encode::{NewElement, NewRecord, NewValue};

const T: u64 = 1_780_000_000_000;

/// A service with a journal that a replay can be pointed at.
struct Setup {
    database: Database,
    directory: tempfile::TempDir,
    process: Process,
}

impl Setup {
    fn start(database: Database, more: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = [&[("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())], more].concat();
        let process = Process::start(&database.url(), "127.0.0.1:0", &own);
        Self { database, directory, process }
    }

    async fn send(&self, device: u64, records: &[NewRecord]) {
        let mut tracker = Tracker::login(self.process.trackers, &imei(device).to_string()).await;
        for records in records.chunks(100) {
            let count = u32::try_from(records.len()).unwrap();
            assert_eq!(tracker.deliver(&frame(records)).await, count);
        }
        self.process.settled().await;
    }

    fn replay(&self, arguments: &[&str]) -> Output {
        self.replay_with(arguments, &[])
    }

    fn replay_with(&self, arguments: &[&str], more: &[(&str, &str)]) -> Output {
        let url = self.database.url();
        let own = [("DATABASE_URL", url.as_str()), ("ODOGRAPH_DATA_DIR", self.directory.path().to_str().unwrap())];
        odograph(&[&["replay"], arguments].concat(), &[&own, more].concat())
    }
}

/// The last line of standard output, after success.
fn result(output: &Output) -> Json {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// Inserted, updated, unchanged, refused.
fn counts(output: &Output) -> [u64; 4] {
    let result = result(output);
    ["inserted", "updated", "unchanged", "refused"].map(|name| result[name].as_u64().unwrap())
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Ignition, external voltage, and an element without a column.
fn rich(ts_ms: u64) -> NewRecord {
    let mut record = record(ts_ms, 1);
    record.elements.push(NewElement { id: 66, value: NewValue::U16(12_000) });
    record.elements.push(NewElement { id: 1000, value: NewValue::U16(7) });
    record
}

fn seconds(rows: &[Map<String, Json>]) -> Vec<u64> {
    rows.iter().map(|row| (row["ts_ms"].as_u64().unwrap() - T) / 1000).collect()
}

#[tokio::test]
async fn a_mended_mapping_reaches_timescaledb() {
    let yesterday =
        "UPDATE TABLE SET io = io || '{\"239\":1}', ignition = NULL, battery_voltage_mv = external_voltage_mv";
    a_mended_mapping_reaches_rows_that_stand(Database::postgres().await, yesterday).await;
}

#[tokio::test]
async fn a_mended_mapping_reaches_sqlite() {
    let yesterday = "UPDATE TABLE SET io = json_set(io, '$.239', 1), ignition = NULL, \
                     battery_voltage_mv = external_voltage_mv";
    a_mended_mapping_reaches_rows_that_stand(Database::sqlite(), yesterday).await;
}

/// `yesterday` makes of rows what a program would have stored that has no column for element 239 and puts element 66 into two.
async fn a_mended_mapping_reaches_rows_that_stand(database: Database, yesterday: &str) {
    let setup = Setup::start(database, &[]);
    for device in 1..=3 {
        setup.send(device, &(0..20).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    }
    let newest = async || (setup.database.table("latest_positions").await.len() == 3).then_some(());
    support::eventually("the newest positions", newest).await;
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

    let dry = setup.replay(&["--dry-run"]);
    assert_eq!(counts(&dry), [0, 60, 0, 0]);
    assert_eq!(result(&dry)["columns"], json!({"ignition": 60, "io": 60, "battery_voltage_mv": 60}));
    assert!(stderr(&dry).contains("battery_voltage_mv 12000 → null"), "{}", stderr(&dry));
    assert_eq!(setup.database.all_positions().await, before, "nothing was changed");

    assert_eq!(counts(&setup.replay(&[])), [0, 60, 0, 0]);
    assert_eq!(setup.database.all_positions().await, today.0, "also faulty and received_at");
    assert_eq!(setup.database.table("latest_positions").await, today.1);
    assert_eq!(counts(&setup.replay(&[])), [0, 0, 60, 0], "run again, it finds nothing to do");
    assert_eq!(setup.process.terminate(), Some(0));
}

#[tokio::test]
async fn deleted_rows_come_back_with_their_flags_in_timescaledb() {
    let flag = "INSERT INTO position_flag_ledger (flag_id, seq, imei, ts_from, ts_to, faulty, deleted, applied_seq) \
                VALUES ('6f1c1c0e-4a53-4bb4-9a3e-3f4c9d0f7b11', 1, :imei, to_timestamp(:from / 1000.0), \
                    to_timestamp(:to / 1000.0), true, false, 1)";
    deleted_rows_come_back_with_their_flags(Database::postgres().await, flag).await;
}

#[tokio::test]
async fn deleted_rows_come_back_with_their_flags_in_sqlite() {
    let flag = "INSERT INTO position_flag_ledger (flag_id, seq, version, imei, ts_from, ts_to, faulty, deleted, applied_seq) \
                VALUES (x'6f1c1c0e4a534bb49a3e3f4c9d0f7b11', 1, 1, :imei, :from, :to, 1, 0, 1)";
    deleted_rows_come_back_with_their_flags(Database::sqlite(), flag).await;
}

async fn deleted_rows_come_back_with_their_flags(database: Database, flag: &str) {
    let setup = Setup::start(database, &[]);
    setup.send(1, &(0..10).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    let stood = setup.database.all_positions().await;
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
    let mut without = stood.clone();
    without.iter_mut().skip(7).for_each(|row| drop(row.insert("faulty".into(), 1.into())));
    assert_eq!(rows, without, "received when they first came");
    assert_eq!(seconds(&setup.database.table("latest_positions").await), [6], "the newest that is not faulty");
    setup.process.kill();
}

#[tokio::test]
async fn what_a_narrow_window_quarantined_becomes_rows_in_timescaledb() {
    what_a_narrow_window_quarantined_becomes_rows(Database::postgres().await).await;
}

#[tokio::test]
async fn what_a_narrow_window_quarantined_becomes_rows_in_sqlite() {
    what_a_narrow_window_quarantined_becomes_rows(Database::sqlite()).await;
}

async fn what_a_narrow_window_quarantined_becomes_rows(database: Database) {
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
    let setup = Setup::start(Database::postgres().await, &[]);
    for device in 1..=2 {
        setup.send(device, &[rich(T), rich(T + 1000)]).await;
    }
    setup.database.execute("DELETE FROM positions").await;
    let device = imei(2).to_string();
    assert_eq!(counts(&setup.replay(&["--to", "1h"])), [0; 4], "all came later");
    assert_eq!(counts(&setup.replay(&["--from", "1h", "--to", "2126-01-01", "--imei", &device])), [2, 0, 0, 0]);
    assert!(setup.database.all_positions().await.iter().all(|row| row["imei"] == imei(2).get()));
    assert_eq!(counts(&setup.replay(&["--from", "2026-01-01T00:00Z"])), [2, 0, 2, 0]);

    for wrong in [&["--from", "1h", "--to", "2h"][..], &["--from", "yesterday"], &["--imei", "12"], &["--nonsense"]] {
        assert_eq!(setup.replay(wrong).status.code(), Some(2), "{wrong:?}");
    }
    setup.process.kill();
}

#[tokio::test]
async fn without_a_journal_of_this_database_there_is_nothing_to_replay() {
    let database = Database::postgres().await;
    let empty = tempfile::tempdir().unwrap();
    let (url, place) = (database.url(), empty.path().to_str().unwrap().to_owned());
    let own = [("DATABASE_URL", url.as_str()), ("ODOGRAPH_DATA_DIR", place.as_str())];
    let output = odograph(&["replay"], &[&own[..], &[("ODOGRAPH_ACK_AFTER", "commit")]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no journal is kept"), "{}", stderr(&output));
    let output = odograph(&["replay"], &own);
    assert!(!output.status.success() && stderr(&output).contains("no journal in"), "{}", stderr(&output));

    let setup = Setup::start(Database::sqlite(), &[]);
    setup.send(1, &[rich(T)]).await;
    let output = setup.replay_with(&[], &[("DATABASE_URL", &url)]);
    assert!(!output.status.success() && stderr(&output).contains("knows nothing of journal"), "{}", stderr(&output));
    let missing = format!("sqlite://{place}/none.sqlite");
    assert!(!setup.replay_with(&[], &[("DATABASE_URL", &missing)]).status.success());
    assert!(!empty.path().join("none.sqlite").exists(), "and no file is made");
    setup.process.kill();
}

#[tokio::test]
async fn what_still_waits_is_left_to_serve() {
    let setup = Setup::start(Database::postgres().await, &[("ODOGRAPH_LANES", "1")]);
    setup.send(1, &[rich(T)]).await;
    let mut blocker = sqlx::postgres::PgConnection::connect(&setup.database.url()).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT * FROM ingest_checkpoints FOR UPDATE").execute(&mut blocker).await.unwrap();
    let mut tracker = Tracker::login(setup.process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[rich(T + 1000)])).await, 1);
    assert_eq!(tracker.deliver(&frame(&[rich(T + 2000)])).await, 1);
    let output = setup.replay(&[]);
    assert_eq!((counts(&output), result(&output)["left_to_serve"].as_u64()), ([0, 0, 1, 0], Some(2)));
    drop(blocker);
    setup.process.settled().await;
    assert_eq!(counts(&setup.replay(&[])), [0, 0, 3, 0]);
    setup.process.kill();
}

#[tokio::test]
async fn what_the_database_refuses_goes_to_quarantine_and_the_others_stand() {
    for database in [Database::postgres().await, Database::sqlite()] {
        let refuse = match &database {
            Database::Postgres { .. } => {
                "ALTER TABLE positions ADD CONSTRAINT no_rocket CHECK (speed_kmh < 250) NOT VALID"
            }
            Database::Sqlite { .. } => {
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

/// What the columnstore does, imitated: a build that has none is tested with as well.
#[tokio::test]
async fn what_is_too_much_for_one_transaction_is_written_in_parts() {
    let limit = "CREATE OR REPLACE FUNCTION unpacked() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE n int := coalesce(nullif(current_setting('test.n', true), ''), '0')::int + 1;
        BEGIN
            PERFORM set_config('test.n', n::text, true);
            IF n > MOST THEN RAISE EXCEPTION 'tuple decompression limit exceeded' USING ERRCODE = '53400'; END IF;
            RETURN NULL;
        END $$";
    let setup = Setup::start(Database::postgres().await, &[]);
    setup.send(1, &(0..700).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    let stood = setup.database.all_positions().await;
    setup.database.execute("DELETE FROM positions").await;
    setup.database.execute(&limit.replace("MOST", "0")).await;
    setup.database.execute("CREATE TRIGGER t AFTER INSERT ON positions FOR EACH ROW EXECUTE FUNCTION unpacked()").await;
    let output = setup.replay(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("max_tuples_decompressed_per_dml_transaction"), "{}", stderr(&output));
    assert_eq!(setup.database.positions().await, 0, "nothing is half done");
    setup.database.execute(&limit.replace("MOST", "100")).await;
    assert_eq!(counts(&setup.replay(&[])), [700, 0, 0, 0]);
    assert_eq!(setup.database.all_positions().await, stood);
    setup.process.kill();
}

#[tokio::test]
async fn live_traffic_goes_on_while_everything_is_replayed() {
    let setup = Setup::start(Database::postgres().await, &[]);
    for device in 0..4 {
        setup.send(device, &(0..2000).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    }
    setup.database.execute("UPDATE positions SET ignition = NULL WHERE altitude_m = 120").await;
    let trackers = setup.process.trackers;
    let load = tokio::spawn(async move {
        let mut sent = 0;
        let mut connections = Vec::new();
        for device in 0..4 {
            connections.push(Tracker::login(trackers, &imei(device).to_string()).await);
        }
        // Half of it new, half of it what is being replayed.
        for n in 0..150 {
            for tracker in &mut connections {
                let records = [rich(T + (2000 + n) * 1000), rich(T + n * 7000)];
                assert_eq!(tracker.deliver(&frame(&records)).await, 2);
                sent += 1;
            }
        }
        sent
    });
    let setup = std::sync::Arc::new(setup);
    let replaying = std::sync::Arc::clone(&setup);
    let output = tokio::task::spawn_blocking(move || replaying.replay(&[])).await.unwrap();
    let [inserted, updated, unchanged, refused] = counts(&output);
    let sent: u64 = load.await.unwrap();
    setup.process.settled().await;
    assert_eq!((inserted, updated, refused), (0, 8000, 0), "{unchanged} unchanged");
    assert_eq!(setup.database.positions().await, 8000 + sent);
    assert_eq!(setup.database.rows("SELECT 1 AS n FROM positions WHERE ignition IS NULL").await.len(), 0);
    let newest = async || {
        let latest = setup.database.table("latest_positions").await;
        (seconds(&latest) == [2149; 4]).then_some(())
    };
    support::eventually("the newest positions", newest).await;
}

#[tokio::test]
async fn a_killed_and_an_interrupted_replay_are_finished_by_the_next() {
    let setup = Setup::start(Database::postgres().await, &[]);
    for device in 0..3 {
        setup.send(device, &(0..4000).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    }
    let stood = setup.database.all_positions().await;
    for signal in ["-KILL", "-INT"] {
        setup.database.execute("TRUNCATE positions").await;
        let url = setup.database.url();
        let own = [("DATABASE_URL", url.as_str()), ("ODOGRAPH_DATA_DIR", setup.directory.path().to_str().unwrap())];
        let mut child = command(&["replay"], &own).stdout(std::process::Stdio::piped()).spawn().unwrap();
        support::eventually("the first rows", async || (setup.database.positions().await > 0).then_some(())).await;
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        child.wait().unwrap();
        let done = setup.database.positions().await;
        assert!(done > 0 && done < 12_000, "{signal} in the middle, at {done}");
        assert_eq!(counts(&setup.replay(&[])), [12_000 - done, 0, done, 0]);
        assert_eq!(setup.database.all_positions().await, stood);
    }
    setup.process.kill();
}
