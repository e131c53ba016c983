//! `odograph quarantine list | show | retry | purge` on both databases, next to a running service.

use std::process::Output;

use odograph_testkit::{ServiceProcess, TestDatabase, Tracker, frame, framed, imei, record};
use serde_json::{Value as Json, json};
use teltonika_codecs::encode::NewRecord;

use crate::ODOGRAPH;

const T: u64 = 1_780_000_000_000;
const NARROW: [(&str, &str); 2] = [("ODOGRAPH_TIME_WINDOW_PAST", "2h"), ("ODOGRAPH_TIME_WINDOW_FUTURE", "2h")];

/// A service that accepts no time near `T`, with the quarantine of two devices: ten records, and a broken frame.
async fn filled(database: &TestDatabase) -> ServiceProcess {
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &NARROW);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&(0..6).map(|n| record(T + n * 1000, 1)).collect::<Vec<_>>())).await, 6);
    assert_eq!(tracker.deliver(&framed(&[8, 3, 1, 2])).await, 3);
    let mut tracker = Tracker::login(process.trackers, &imei(2).to_string()).await;
    for _ in 0..2 {
        assert_eq!(tracker.deliver(&frame(&(0..4).map(|n| record(T + n * 1000, 1)).collect::<Vec<_>>())).await, 4);
    }
    process.settled().await;
    process
}

fn run(database: &TestDatabase, arguments: &[&str], more: &[(&str, &str)]) -> Output {
    let url = database.url();
    ODOGRAPH.run(&[&["quarantine"], arguments].concat(), &[&[("DATABASE_URL", url.as_str())], more].concat())
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn objects(output: &Output) -> Vec<Json> {
    text(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn last(output: &Output) -> Json {
    serde_json::from_str(text(output).lines().last().unwrap()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

async fn kept(database: &TestDatabase) -> usize {
    database.rows("SELECT imei FROM quarantined_records").await.len()
}

#[tokio::test]
async fn records_are_listed_and_shown_in_timescaledb() {
    records_are_listed_and_shown(TestDatabase::postgres().await).await;
}

#[tokio::test]
async fn records_are_listed_and_shown_in_sqlite() {
    records_are_listed_and_shown(TestDatabase::sqlite()).await;
}

async fn records_are_listed_and_shown(database: TestDatabase) {
    let process = filled(&database).await;
    let all = text(&run(&database, &["list"], &[]));
    assert!(all.contains("time_window: 10 in quarantine, received 14 times"), "{all}");
    assert!(all.contains("undecodable: 1 in quarantine, received 1 times") && all.contains("(a whole frame)"), "{all}");
    let some = text(&run(&database, &["list", "--limit", "3"], &[]));
    assert!(some.contains("… and 8 more"), "{some}");

    let (first, second) = (imei(1).to_string(), imei(2).to_string());
    for (filter, count) in [
        (&[][..], 11),
        (&["--imei", &second], 4),
        (&["--imei", &first, "--reason", "time-window"], 6),
        (&["--reason", "undecodable"], 1),
        (&["--reason", "refused"], 0),
        (&["--from", "1h"], 11),
        (&["--to", "1h"], 0),
    ] {
        let listed = objects(&run(&database, &[&["list", "--json"], filter].concat(), &[]));
        assert_eq!(listed.len(), count, "{filter:?}");
    }
    assert!(text(&run(&database, &["list", "--to", "1h"], &[])).contains("no matching record"));

    let listed = objects(&run(&database, &["list", "--json", "--imei", &second], &[]));
    assert!(listed.iter().all(|one| one["seen"] == 2 && one["imei"] == second.as_str()));
    let newest = listed.iter().find(|one| one["record_index"] == 3).unwrap();
    let id = newest["id"].as_str().unwrap();
    let shown = last(&run(&database, &["show", "--json", "--imei", &second, &id[..12]], &[]));
    assert_eq!(shown["hex"], newest["hex"]);
    assert_eq!(newest["device_time"], shown["decoded"]["records"][0]["timestamp"], "as the decoder shows it");
    assert!(all.contains(newest["device_time"].as_str().unwrap()), "{all}");
    assert_eq!(shown["decoded"]["records"][0]["timestamp_ms"], json!(T + 3000));
    let printed = text(&run(&database, &["show", "--named", "--imei", &second, id], &[]));
    assert!(printed.contains("\"name\":\"Ignition\"") && printed.contains("record 3 of a frame"), "{printed}");
    // The same records of two devices.
    let both = run(&database, &["show", id], &[]);
    assert!(!both.status.success() && stderr(&both).contains(&first) && stderr(&both).contains(&second));
    let broken = text(&run(&database, &["show", "--reason", "undecodable"], &[]));
    assert!(broken.contains("\"reason\":\"count_mismatch\"") && broken.contains("08030102"), "{broken}");
    assert_eq!(run(&database, &["show", "0000000000000000"], &[]).status.code(), Some(1));
    for invalid in
        [&["show", "xyz1"][..], &["list", "--reason", "bored"], &["list", "--limit", "0"], &["list", "--from", "x"]]
    {
        assert_eq!(run(&database, invalid, &[]).status.code(), Some(2), "{invalid:?}");
    }
    process.kill();
}

#[tokio::test]
async fn what_can_be_decoded_by_now_leaves_the_quarantine_in_timescaledb() {
    what_can_be_decoded_by_now_leaves_the_quarantine(TestDatabase::postgres().await).await;
}

#[tokio::test]
async fn what_can_be_decoded_by_now_leaves_the_quarantine_in_sqlite() {
    what_can_be_decoded_by_now_leaves_the_quarantine(TestDatabase::sqlite()).await;
}

async fn what_can_be_decoded_by_now_leaves_the_quarantine(database: TestDatabase) {
    let process = filled(&database).await;
    let still = last(&run(&database, &["retry"], &NARROW));
    assert_eq!((&still["tried"], &still["resolved"]), (&json!(11), &json!(0)));
    assert_eq!(still["stay"], json!({"time_window": 10, "undecodable": 1, "refused": 0}));
    assert_eq!((kept(&database).await, database.positions().await), (11, 0));

    let device = imei(2).to_string();
    let dry = last(&run(&database, &["retry", "--dry-run", "--imei", &device], &[]));
    assert_eq!((&dry["inserted"], &dry["resolved"], &dry["dry_run"]), (&json!(4), &json!(4), &json!(true)));
    assert_eq!((kept(&database).await, database.positions().await), (11, 0));
    let one = last(&run(&database, &["retry", "--imei", &device], &[]));
    assert_eq!((&one["tried"], &one["inserted"], &one["resolved"]), (&json!(4), &json!(4), &json!(4)));
    assert_eq!((kept(&database).await, database.positions().await), (7, 4));
    let rest = last(&run(&database, &["retry"], &[]));
    assert_eq!((&rest["tried"], &rest["inserted"], &rest["resolved"]), (&json!(7), &json!(6), &json!(6)));
    assert_eq!((kept(&database).await, database.positions().await), (1, 10));

    // The rows are as replay would have written them: it finds nothing to do.
    let rows = database.all_positions().await;
    let received: Vec<_> = rows.iter().map(|row| row["received_us"].as_i64().unwrap() / 60_000_000).collect();
    assert!(received.iter().all(|minute| *minute > 29_000_000), "when they first came: {received:?}");
    assert_eq!(database.table("latest_positions").await.len(), 2);
    process.kill();
}

#[tokio::test]
async fn a_whole_frame_that_can_be_read_by_now_stays_while_a_record_of_it_is_refused() {
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[]);
        let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
        assert_eq!(tracker.deliver(&framed(&[8, 3, 1, 2])).await, 3);
        process.settled().await;
        // A frame that an earlier program could not read.
        let stray = NewRecord { timestamp_ms: 1_078_099_200_000, ..record(T, 1) };
        let whole = frame(&[record(T, 1), stray]);
        let data: String = whole[8..whole.len() - 4].iter().map(|byte| format!("{byte:02x}")).collect();
        let (bytes, digest) = match &database {
            TestDatabase::Postgres { .. } => (format!("'\\x{data}'"), format!("sha256('\\x{data}')")),
            TestDatabase::Sqlite { .. } => (format!("x'{data}'"), "DIGEST".to_owned()),
        };
        let digest = digest.replace("DIGEST", &format!("x'{}'", sha256(&whole[8..whole.len() - 4])));
        database
            .execute(&format!("UPDATE quarantined_records SET codec = 142, bytes = {bytes}, digest = {digest}"))
            .await;

        let window = [("ODOGRAPH_TIME_WINDOW_PAST", "6000d"), ("ODOGRAPH_TIME_WINDOW_FUTURE", "20000d")];
        let half = last(&run(&database, &["retry"], &window));
        assert_eq!(
            (&half["inserted"], &half["resolved"], &half["stay"]["time_window"]),
            (&json!(1), &json!(0), &json!(1))
        );
        assert_eq!(
            (kept(&database).await, database.positions().await),
            (1, 1),
            "only the quarantine has the other record"
        );
        let whole = last(&run(&database, &["retry"], &[]));
        assert_eq!((&whole["inserted"], &whole["unchanged"], &whole["resolved"]), (&json!(1), &json!(1), &json!(1)));
        assert_eq!((kept(&database).await, database.positions().await), (0, 2));
        process.kill();
    }
}

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..64].to_owned()
}

#[tokio::test]
async fn purge_deletes_what_is_named_and_nothing_else() {
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        let process = filled(&database).await;
        assert_eq!(run(&database, &["purge", "--yes"], &[]).status.code(), Some(2), "everything only with --all");
        assert_eq!(run(&database, &["purge", "--all"], &[]).status.code(), Some(2), "there is no terminal to ask");
        assert_eq!(kept(&database).await, 11);
        let purged =
            |filter: &[&str]| last(&run(&database, &[&["purge", "--yes"], filter].concat(), &[]))["purged"].clone();
        assert_eq!(purged(&["--to", "1h"]), 0);
        assert_eq!(purged(&["--imei", &imei(1).to_string(), "--reason", "time-window"]), 6);
        assert_eq!(kept(&database).await, 5);
        assert_eq!(purged(&["--from", "1h", "--reason", "undecodable"]), 1);
        assert_eq!(purged(&["--all"]), 4);
        assert_eq!(kept(&database).await, 0);
        process.kill();
    }
}
