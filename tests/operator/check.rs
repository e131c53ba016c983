//! `odograph check` as an operator runs it: a sound installation, its table and its JSON, and peers that hang.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use odograph::check::Check;
use odograph_testkit::{RedisServer, TestDatabase, Tracker, eventually, frame, readiness, record};
use serde_json::Value as Json;

use crate::ODOGRAPH;
use crate::check_report::{Report, SMALL, at, directory, flag, redis_asks, run, wrong_here};

const T: u64 = 1_780_000_000_000;

#[tokio::test]
async fn a_sound_installation_has_nothing_wrong() {
    let (database, redis, directory) = (TestDatabase::postgres().await, RedisServer::started().await, directory());
    redis_asks(&redis, redis::cmd("XADD").arg("odograph:position-flags").arg("*").arg(&flag())).await;
    let (url, redis_url) = (database.url(), redis.url());
    let settings = [at(&directory), SMALL, ("DATABASE_URL", &*url), ("REDIS_URL", &*redis_url)];
    let service = ODOGRAPH.serve(&url, "127.0.0.1:0", &settings);
    let mut tracker = Tracker::login(service.trackers, "356307042441013").await;
    assert_eq!(tracker.deliver(&frame(&[record(T, 1)])).await, 1);
    service.settled().await;
    assert_eq!(readiness(service.admin).await.2, Vec::<String>::new());
    let admin = service.admin.to_string();
    let settings = [&settings[..], &[("ODOGRAPH_ADMIN_LISTEN", &*admin)]].concat();
    // Flags and latest positions follow within a moment.
    let report = eventually("the flag to be applied", async || {
        let report = Report::new(&settings);
        let last_commit = report.finding("last-commit")["found"].as_str().unwrap().to_owned();
        let has_all = last_commit.contains("everything is in the database");
        (report.verdict("flag-group") == "ok" && has_all).then_some(report)
    })
    .await;
    let expected = wrong_here(directory.path());
    assert_eq!(report.wrong(), expected, "{}", report.text);
    assert_eq!(report.code, Some(i32::from(!expected.is_empty())));
    assert_eq!(report.json["unknown"], 0, "{}", report.text);
    let names: Vec<_> = report.findings().iter().map(|finding| finding["name"].as_str().unwrap()).collect();
    let every: Vec<_> = Check::ALL.iter().map(|check| check.as_str()).collect();
    assert_eq!(names, every, "everything is checked, in order");
    for (name, found) in [
        ("service", "ready, 1 trackers connected"),
        ("journal", "whole; a service has it open"),
        ("last-commit", "everything is in the database"),
        ("flag-stream", "odograph:position-flags: 1 entries"),
        ("chunks", "1 chunks of 1day"),
        ("synchronous-commit", "on, for everybody"),
        ("schema", "every migration is applied"),
    ] {
        assert!(report.finding(name)["found"].as_str().unwrap().contains(found), "{}", report.finding(name));
    }
    // The service goes on as before, and the journal is intact afterwards.
    assert_eq!(tracker.deliver(&frame(&[record(T + 1_000, 1)])).await, 1);
    service.settled().await;
    drop(tracker);
    assert_eq!(service.terminate(), Some(0));
    let report = Report::new(&settings);
    assert_eq!((report.wrong(), report.verdict("service")), (expected, "note"), "{}", report.text);
    assert!(report.finding("journal")["found"].as_str().unwrap().contains("no service has it open"));
}

#[test]
fn without_a_server_a_file_is_enough_and_nothing_is_made() {
    let directory = directory();
    let nothing_yet = directory.path().join("data");
    let report = Report::new(&[("ODOGRAPH_DATA_DIR", nothing_yet.to_str().unwrap()), SMALL]);
    assert_eq!(report.wrong(), wrong_here(directory.path()), "{}", report.text);
    assert!(report.finding("database")["found"].as_str().unwrap().contains("the first start makes"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a check creates nothing");
}

#[test]
fn table_and_json_say_the_same_and_quiet_says_what_matters() {
    let directory = directory();
    std::fs::write(
        directory.path().join("journal-gap"),
        "journal x: positions 5 to 9 were not in the database and are gone\n",
    )
    .unwrap();
    let settings = [at(&directory), SMALL, ("REDIS_URL", "redis://:hunter2@127.0.0.1:1")];
    let report = Report::new(&settings);
    report.names("journal-gap", "positions 5 to 9", "--accept-gap");
    let table = run(&[], &settings);
    assert_eq!(table.status.code(), Some(1));
    let table = String::from_utf8(table.stdout).unwrap();
    // Free space, times and speeds change between two runs.
    for finding in
        report.findings().iter().filter(|finding| finding["name"] != "disk-sync" && finding["name"] != "disk-room")
    {
        let name = finding["name"].as_str().unwrap();
        assert!(table.contains(name), "{name} is missing in\n{table}");
        for text in [&finding["found"], &finding["remedy"]].into_iter().filter_map(Json::as_str) {
            assert!(table.contains(text), "{text} is missing in\n{table}");
        }
    }
    assert!(table.lines().any(|line| line.starts_with("WRONG   journal-gap ")), "{table}");
    assert!(table.lines().last().unwrap().ends_with("unknown"), "{table}");
    let quiet = String::from_utf8(run(&["--quiet"], &settings).stdout).unwrap();
    assert!(quiet.contains("journal-gap") && !quiet.lines().any(|line| line.starts_with("ok ")), "{quiet}");
}

#[test]
fn wrong_settings_are_listed_as_config_check_lists_them() {
    let variables = [("DATABASE_URL", "mysql://user:hunter2@host/db"), ("ODOGRAPH_LANES", "0")];
    let output = run(&["--json"], &variables);
    let report = Report::of(&output);
    assert_eq!((report.code, report.wrong()), (Some(2), vec!["settings"]));
    let (found, said) = (report.finding("settings")["found"].to_string(), String::from_utf8(output.stderr).unwrap());
    for text in [&found, &said] {
        assert!(
            text.contains("DATABASE_URL: ") && text.contains("ODOGRAPH_LANES: ") && !text.contains("hunter2"),
            "{text}"
        );
    }
    let directory = directory();
    let report = Report::new(&[at(&directory), SMALL, ("ODOGRAPH_LOGIN_TIMOUT", "5s")]);
    assert_eq!(report.verdict("settings"), "note");
    assert_eq!(run(&["--nonsense"], &[]).status.code(), Some(2));
}

#[test]
fn peers_that_hang_cost_seconds_and_no_secret_is_shown() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, directory) = (silent.local_addr().unwrap().to_string(), directory());
    let database = format!("postgres://me:hunter2@{address}/rally");
    let redis = format!("redis://marshal:hunter2@{address}");
    let settings = [
        at(&directory),
        SMALL,
        ("DATABASE_URL", &*database),
        ("REDIS_URL", &*redis),
        ("ODOGRAPH_ADMIN_LISTEN", &*address),
    ];
    let begun = Instant::now();
    let report = Report::new(&settings);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    report.names("database", "postgres://me:_@127.0.0.1", "DATABASE_URL");
    report.names("redis", "redis://_@127.0.0.1", "REDIS_URL");
    report.names("service", &address, "ss -ltnp");
    for arguments in [&["--json"][..], &[]] {
        // A peer that refuses at once sees no secret either.
        let refusing = [
            at(&directory),
            SMALL,
            ("DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/rally"),
            ("REDIS_URL", "redis://:hunter2@127.0.0.1:1"),
        ];
        let output = run(arguments, &refusing);
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.code() == Some(1) && !String::from_utf8_lossy(&said).contains("hunter2"));
    }
    assert!(!report.text.contains("hunter2"));
}

#[test]
fn the_documentation_has_every_check() {
    let text = include_str!("../../docs/check.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let rows: Vec<_> = rows.filter(|(name, _)| !name.starts_with("--")).collect();
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    let every: Vec<_> = Check::ALL.iter().map(|check| check.as_str()).collect();
    assert_eq!(names, every);
    let columns: BTreeMap<_, _> = rows.iter().map(|(name, rest)| (*name, rest.matches('|').count())).collect();
    assert!(columns.values().all(|columns| *columns == 4), "{columns:?}");
}
