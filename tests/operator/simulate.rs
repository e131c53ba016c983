//! `simulate` and `demo` as a user runs them.

use std::process::{Command, Output};

use odograph_testkit::TestDatabase;
use serde_json::Value as Json;

use crate::ODOGRAPH;

fn odograph(arguments: &[impl AsRef<std::ffi::OsStr>], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(ODOGRAPH.path());
    command.args(arguments).env_remove("DATABASE_URL").envs(variables.iter().copied()).output().unwrap()
}

fn last_line(output: &Output) -> Json {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let line = text.lines().last().unwrap_or_else(|| panic!("{}", said(output)));
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_fleet_stays_away_from_registered_devices_unless_forced() {
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        let service = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[]);
        database.execute("CREATE TABLE IF NOT EXISTS devices (imei TEXT PRIMARY KEY)").await;
        database.execute("INSERT INTO devices (imei) VALUES ('001000000000003'), ('356307042441013')").await;
        let (target, url) = (service.trackers.to_string(), database.url());
        let fleet = ["simulate", "--target", &target, "--devices", "2", "--packets", "2"];
        let at = |first: &str, more: &[&str]| -> Vec<String> {
            [&fleet[..], &["--first-device", first], more].concat().into_iter().map(str::to_owned).collect()
        };
        for (arguments, variable) in
            [(at("2", &["--verify", &url]), None), (at("3", &[]), Some(("DATABASE_URL", &*url)))]
        {
            let refused = odograph(&arguments, variable.as_slice());
            assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
            assert!(said(&refused).contains("the table devices holds 1 IMEIs of the fleet"), "{}", said(&refused));
            assert!(refused.stdout.is_empty());
        }
        assert_eq!(database.positions().await, 0, "nothing was sent");
        for first in ["1", "4"] {
            let allowed = odograph(&at(first, &["--verify", &url]), &[]);
            assert!(allowed.status.success(), "{}", said(&allowed));
        }
        let forced = odograph(&at("2", &["--force"]), &[("DATABASE_URL", &url)]);
        assert!(forced.status.success(), "{}", said(&forced));
    }
}

#[tokio::test]
async fn an_audit_that_finds_something_says_what_and_fails() {
    let (database, other) = (TestDatabase::postgres().await, TestDatabase::postgres().await);
    let service = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[]);
    let (target, url) = (service.trackers.to_string(), other.url());
    let fleet =
        ["simulate", "--target", &target, "--devices", "3", "--packets", "2", "--settle", "0s", "--verify", &url];
    let output = odograph(&fleet, &[]);
    assert_eq!(output.status.code(), Some(1));
    let audit = &last_line(&output)["audit"];
    assert_eq!((&audit["acknowledged"], &audit["missing"], &audit["stored"]), (&60.into(), &60.into(), &0.into()));
    assert!(said(&output).contains("µs: missing") && said(&output).contains("break the promise"), "{}", said(&output));

    let nobody = odograph(&["simulate", "--target", &target, "--verify", "postgres://nobody@127.0.0.1:1/none"], &[]);
    assert_eq!(nobody.status.code(), Some(1), "a fleet that cannot be audited sends nothing");
    service.settled().await;
    assert_eq!(database.positions().await, 60);
}

#[tokio::test]
async fn trackers_with_stray_clocks_end_in_quarantine_and_break_no_promise() {
    let database = TestDatabase::postgres().await;
    let service = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[("ODOGRAPH_TIME_WINDOW_PAST", "400d")]);
    let (target, url) = (service.trackers.to_string(), database.url());
    let fleet = ["simulate", "--target", &target, "--devices", "50", "--packets", "4", "--verify", &url];
    let output = odograph(&[&fleet[..], &["--wrong-clocks", "stray"]].concat(), &[]);
    assert!(output.status.success(), "{}", said(&output));
    let audit = &last_line(&output)["audit"];
    assert_eq!(
        (&audit["acknowledged"], &audit["quarantined"], &audit["stored"]),
        (&2000.into(), &40.into(), &1960.into())
    );
    // Records of clocks that are only days off are stored, and two runs do not share records.
    let output = odograph(&fleet, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(last_line(&output)["audit"]["stored"], 2000);
}

#[tokio::test]
async fn trackers_connect_from_several_addresses() {
    let database = TestDatabase::sqlite();
    let service = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[("ODOGRAPH_MAX_CONNECTIONS_PER_IP", "1")]);
    let (target, url) = (service.trackers.to_string(), database.url());
    // All at the same time, and each address may have only one connection.
    let fleet =
        ["simulate", "--target", &target, "--devices", "5", "--sources", "5", "--rate", "500", "--packets", "10"];
    let never = ["--lose-answer-every", "0", "--reconnect-every", "0", "--verify", &url];
    let output = odograph(&[&fleet[..], &never].concat(), &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(last_line(&output)["sent"], 500, "no tracker was turned away");

    let elsewhere = odograph(&["simulate", "--target", "[::1]:5027", "--sources", "2"], &[]);
    assert_eq!(elsewhere.status.code(), Some(2), "{}", said(&elsewhere));
}

#[test]
fn a_plan_that_leaves_the_time_window_is_wrong_usage() {
    let output = odograph(&["simulate", "--target", "127.0.0.1:1", "--packets", "4000000"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("462 days"), "{}", said(&output));
}

#[test]
fn the_demo_explains_itself() {
    let output = odograph(&["demo", "--for", "1s", "--devices", "1"], &[]);
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    for part in ["1 simulated trackers drive", "deleted at the end", "result:", "rows in the database", "0 missing"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1, "one line on standard output");
}

#[test]
fn a_password_in_an_argument_is_refused() {
    let target = "127.0.0.1:1";
    let refused = odograph(&["simulate", "--target", target, "--verify", "postgres://me:s3cret@127.0.0.1:1/none"], &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("DATABASE_URL") && !said.contains("s3cret"), "{said}");
    let nothing = odograph(&["simulate", "--target", target, "--verify"], &[]);
    assert_eq!(nothing.status.code(), Some(2), "no DATABASE_URL");
}
