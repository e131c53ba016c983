//! The audit can fail: what is removed, doubled or changed behind its back is found, on both databases.

use std::sync::Arc;
use std::time::Duration;

use odograph::store::DatabaseUrl;
use odograph_fleet::audit::{Findings, audit, settled};
use odograph_fleet::{Clocks, Plan, Progress, TrackerReport};
use odograph_testkit::{Service, TestDatabase};
use teltonika_codecs::encode;
use tokio_util::sync::CancellationToken;

/// A database with what a fleet sent.
struct Audited {
    database: TestDatabase,
    url: DatabaseUrl,
    told: Vec<TrackerReport>,
}

impl Audited {
    /// Trackers 5 to 8, of both models; tracker 7 has a clock of 2004 where clocks are stray.
    async fn new(database: TestDatabase, clocks: Clocks) -> Self {
        let url = DatabaseUrl::parse(&database.url()).unwrap();
        let service = Service::start(&database.url(), &[("ODOGRAPH_TIME_WINDOW_PAST", "4000d")]).await;
        let plan =
            Plan { devices: 4, packets: Some(6), first_device: 5, clocks, ..Plan::new(service.trackers, START_MS) };
        let plan = Plan { lose_answer_every: 4, reconnect_every: 3, ..plan };
        let told = odograph_fleet::run(plan, Arc::new(Progress::default()), CancellationToken::new()).await;
        service.settled().await;
        service.stop().await;
        database.execute("CREATE TABLE kept AS SELECT * FROM positions").await;
        Self { database, url, told }
    }

    async fn audit(&self) -> Findings {
        audit(&self.url, &self.told).await.unwrap()
    }

    /// What the audit finds after some statement, which is undone again.
    async fn after(&self, statement: &str) -> Found {
        self.database.execute(statement).await;
        let findings = self.audit().await;
        assert_eq!(findings.clean(), findings.examples.is_empty(), "{statement}: {findings:?}");
        self.database.execute("DELETE FROM positions; INSERT INTO positions SELECT * FROM kept").await;
        let Findings { missing, twice, wrong, unknown, .. } = findings;
        Found { missing, twice, wrong, unknown }
    }

    /// The key of a row that has everything: a fix, typed elements and others.
    async fn full_row(&self) -> String {
        let query = "SELECT imei, fingerprint FROM positions WHERE io IS NOT NULL AND valid AND codec = 142 LIMIT 1";
        let row = &self.database.rows(query).await[0];
        format!("imei = {} AND fingerprint = {}", row["imei"], row["fingerprint"])
    }

    /// Columns and their types.
    async fn columns(&self) -> Vec<(String, String)> {
        let query = match self.database {
            TestDatabase::Postgres { .. } => {
                "SELECT column_name AS name, data_type AS type FROM information_schema.columns WHERE table_name = 'positions'"
            }
            TestDatabase::Sqlite { .. } => "SELECT name, type FROM pragma_table_info('positions')",
        };
        let rows = self.database.rows(query).await;
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_lowercase();
        rows.iter().map(|row| (text(&row["name"]), text(&row["type"]))).collect()
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    missing: u64,
    twice: u64,
    wrong: u64,
    unknown: u64,
}

const CLEAN: Found = Found { missing: 0, twice: 0, wrong: 0, unknown: 0 };
const START_MS: u64 = 1_780_056_000_000;

#[tokio::test]
async fn a_changed_table_is_found_in_the_hypertable() {
    every_change_is_found(Audited::new(TestDatabase::postgres().await, Clocks::Right).await).await;
}

#[tokio::test]
async fn a_changed_table_is_found_in_the_embedded_store() {
    every_change_is_found(Audited::new(TestDatabase::sqlite(), Clocks::Right).await).await;
}

async fn every_change_is_found(audited: Audited) {
    let findings = audited.audit().await;
    assert!(findings.clean(), "{findings:?}");
    assert_eq!((findings.acknowledged, findings.stored), (240, 240));

    let row = audited.full_row().await;
    let removed = audited.after(&format!("DELETE FROM positions WHERE {row}")).await;
    assert_eq!(removed, Found { missing: 1, ..CLEAN });
    let all = audited.after("DELETE FROM positions").await;
    assert_eq!(all, Found { missing: 240, ..CLEAN });

    // Every column but the key and the receive time, which is the service's own.
    let columns = audited.columns().await;
    let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 43);
    for (name, kind) in &columns {
        let update = |value: &str| format!("UPDATE positions SET {name} = {value} WHERE {row}");
        let changed = match (name.as_str(), kind.as_str()) {
            ("imei" | "ts" | "fingerprint" | "received_at", _) => continue,
            ("io", _) => r#"'{"11": 5}'"#.to_owned(),
            ("valid" | "faulty", "integer") => format!("1 - {name}"),
            (_, "boolean") => format!("NOT coalesce({name}, false)"),
            // Less than a wire unit of a coordinate, and a tenth of a dilution of precision.
            ("longitude" | "latitude", _) => format!("{name} + 0.00000005"),
            (_, "real") => format!("coalesce({name}, 0) + 0.1"),
            _ => format!("coalesce({name}, 0) + 1"),
        };
        assert_eq!(audited.after(&update(&changed)).await, Found { wrong: 1, ..CLEAN }, "{name} = {changed}");
        let empty =
            audited.database.rows(&format!("SELECT 1 AS n FROM positions WHERE {row} AND {name} IS NULL")).await;
        if empty.is_empty() && !matches!(name.as_str(), "valid" | "faulty") {
            assert_eq!(audited.after(&update("NULL")).await, Found { wrong: 1, ..CLEAN }, "{name} = NULL");
        }
    }

    let change = |what: &str| format!("UPDATE positions SET {what} WHERE {row}");
    assert_eq!(audited.after(&change("imei = 1")).await, Found { missing: 1, ..CLEAN });
    assert_eq!(audited.after(&change("fingerprint = fingerprint + 1")).await, Found { wrong: 1, ..CLEAN });
    let (a_little, a_second) = match audited.database {
        TestDatabase::Postgres { .. } => ("ts + INTERVAL '1 microsecond'", "ts + INTERVAL '1.7 seconds'"),
        TestDatabase::Sqlite { .. } => ("ts + 1", "ts + 1700"),
    };
    for later in [a_little, a_second] {
        let moved = audited.after(&change(&format!("ts = {later}"))).await;
        assert_eq!(moved, Found { missing: 1, unknown: 1, ..CLEAN }, "{later}");
    }

    // The key forbids an exact double, so a double stands under another fingerprint or another time.
    let copy = |replaced: &str, by: &str| {
        let columns = names.join(", ");
        let values = columns.replacen(replaced, by, 1);
        format!("INSERT INTO positions ({columns}) SELECT {values} FROM positions WHERE {row}")
    };
    let doubled = audited.after(&copy("fingerprint", "fingerprint + 1")).await;
    assert_eq!(doubled, Found { twice: 1, ..CLEAN });
    let again = audited.after(&copy(" ts,", &format!(" {a_second},"))).await;
    assert_eq!(again, Found { unknown: 1, ..CLEAN });

    assert!(audited.audit().await.clean(), "all of it was undone");
}

#[tokio::test]
async fn only_what_was_acknowledged_has_to_be_there_and_only_what_was_sent_may() {
    let mut audited = Audited::new(TestDatabase::sqlite(), Clocks::Right).await;
    let told = |audited: &Audited, acknowledged, unanswered| {
        let routes = audited.told.iter().map(|told| told.route);
        routes.map(|route| TrackerReport::new(route, acknowledged, unanswered)).collect()
    };
    for (acknowledged, unanswered, missing, unknown) in
        [(60, 0, 0, 0), (40, 20, 0, 0), (60, 5, 0, 0), (65, 0, 20, 0), (50, 0, 0, 40)]
    {
        audited.told = told(&audited, acknowledged, unanswered);
        let findings = audited.audit().await;
        assert_eq!((findings.missing, findings.unknown), (missing, unknown), "{acknowledged} + {unanswered}");
        assert_eq!((findings.acknowledged, findings.stored), (4 * acknowledged, 240));
    }
}

#[tokio::test]
async fn an_audit_waits_for_what_is_still_being_written() {
    let audited = Audited::new(TestDatabase::sqlite(), Clocks::Right).await;
    let (url, told) = (&audited.url, &audited.told);
    audited.database.execute("DELETE FROM positions WHERE codec = 8").await;
    assert_eq!(settled(url, told, Duration::ZERO).await.unwrap().missing, 120);
    let (findings, ()) = tokio::join!(settled(url, told, Duration::from_mins(1)), async {
        audited.database.execute("INSERT INTO positions SELECT * FROM kept WHERE codec = 8").await;
    });
    assert!(findings.unwrap().clean());
}

#[tokio::test]
async fn what_is_in_quarantine_is_not_lost() {
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        let audited = Audited::new(database, Clocks::SomeStray).await;
        let findings = audited.audit().await;
        assert!(findings.clean(), "{findings:?}");
        assert_eq!((findings.acknowledged, findings.quarantined, findings.stored), (240, 60, 180));

        let database = &audited.database;
        database.execute("DELETE FROM quarantined_records WHERE record_index = 3").await;
        let findings = audited.audit().await;
        assert!(!findings.clean() && findings.missing >= 6, "{findings:?}");
        assert_eq!(findings.missing + findings.quarantined, 60);

        // A whole frame in quarantine keeps its records as well.
        let route = audited.told[2].route;
        let records: Vec<_> = (0..60).rev().map(|n| route.record(n)).collect();
        let frame = encode::frame(route.codec(), &records).unwrap();
        let hex: String = frame[8..frame.len() - 4].iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = |hex: &str| match database {
            TestDatabase::Postgres { .. } => format!("'\\x{hex}'::bytea"),
            TestDatabase::Sqlite { .. } => format!("X'{hex}'"),
        };
        let (digest, bytes) = (bytes("00"), bytes(&hex));
        let columns = "imei, reason, detail, received_at, journal_id, position, codec";
        database
            .execute(&format!(
                "INSERT INTO quarantined_records ({columns}, digest, bytes)
                 SELECT {columns}, {digest}, {bytes} FROM quarantined_records LIMIT 1"
            ))
            .await;
        let findings = audited.audit().await;
        assert!(findings.clean() && findings.quarantined == 60, "{findings:?}");
    }
}
