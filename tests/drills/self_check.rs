//! The drills can fail: what is removed, doubled or changed behind a service's back is reported broken, and so is a drill without
//! its fault, without load, with a panic, or without an end.

use std::time::Duration;

use odograph_fleet::audit::Findings;
use odograph_testkit::TestDatabase;

use crate::report::{Line, Outcome, caught};
use crate::setup::DrillSetup;

crate::drills! {
    "self-check", short, sabotage, "rows are deleted, doubled and changed by hand, and the report must say broken";
}

pub(crate) const NAME: &str = "self-check";

async fn sabotage(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let launch = setup.launch(&database.url());
    let serve = launch.start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    load.goes_on(2_000).await;
    let reports = load.stop().await;
    let findings = setup.finish(serve, &reports, &database).await;
    let line = |findings: &Findings, faults| {
        let outcome = Outcome { findings: findings.clone(), faults };
        Line::new(NAME, 0, Ok(outcome), Duration::ZERO, &setup.directory)
    };
    assert!(!line(&findings, vec![("fault", 1)]).is_broken(), "nothing is broken yet");

    let mut found = 0;
    database.execute("CREATE TABLE kept AS TABLE positions; CREATE TABLE kept_latest AS TABLE latest_positions").await;
    let acknowledged = "imei = (SELECT min(imei) FROM positions) AND valid ORDER BY ts LIMIT 3";
    let three =
        format!("(imei, ts, fingerprint) IN (SELECT imei, ts, fingerprint FROM positions WHERE {acknowledged})");
    let columns = columns(&database).await;
    let doubled = columns.replacen("fingerprint", "fingerprint + 1", 1);
    for (what, statement) in [
        ("missing", format!("DELETE FROM positions WHERE {three}")),
        ("wrong", format!("UPDATE positions SET speed_kmh = speed_kmh + 1 WHERE {three}")),
        ("twice", format!("INSERT INTO positions ({columns}) SELECT {doubled} FROM positions WHERE {three}")),
    ] {
        database.execute(&statement).await;
        let sabotaged = line(&setup.audit_rows(&database, &reports).await, vec![("fault", 1)]);
        let json = sabotaged.json();
        assert!(sabotaged.is_broken() && json["verdict"] == "broken" && json[what] == 3, "{what}: {json}");
        assert_eq!(sabotaged.findings().missing + sabotaged.findings().wrong + sabotaged.findings().twice, 3, "{json}");
        database.execute("DELETE FROM positions; INSERT INTO positions SELECT * FROM kept").await;
        found += 1;
    }

    assert!(line(&findings, vec![]).is_broken(), "no fault");
    assert!(line(&findings, vec![("one", 1), ("other", 0)]).is_broken(), "a fault that did not happen");
    assert!(line(&Findings::default(), vec![("fault", 1)]).is_broken(), "no load");
    let panicked = caught(async { assert_eq!(1, 2, "this drill panics") }, Duration::from_secs(5)).await;
    assert!(panicked.unwrap_err().contains("this drill panics"));
    let endless = caught(std::future::pending::<()>(), Duration::from_millis(10)).await;
    assert!(endless.unwrap_err().contains("did not end"));
    let dead = Line::new(NAME, 0, Err("why".into()), Duration::ZERO, &setup.directory);
    assert!(dead.is_broken() && dead.json()["verdict"] == "broken");
    Outcome { findings, faults: vec![("sabotages found", found)] }
}

async fn columns(database: &TestDatabase) -> String {
    let names = "SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'positions'";
    let rows = database.rows(names).await;
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    names.join(", ")
}
