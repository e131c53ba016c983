//! The audit can fail: it finds rows that were removed, doubled or changed, on both databases.

use std::sync::Arc;
use std::time::Duration;

use odograph::store::DatabaseUrl;
use odograph_fleet::audit::{Findings, audit, settled};
use odograph_fleet::{Clocks, Plan, Progress, TrackerReport};
use odograph_testkit::{Service, TestDatabase};
use teltonika_codecs::encode;
use tokio_util::sync::CancellationToken;

/// A fleet, and the database that stored its records.
struct AuditedFleet {
    database: TestDatabase,
    url: DatabaseUrl,
    reports: Vec<TrackerReport>,
}

impl AuditedFleet {
    /// Runs trackers 5 to 8, of both models. With stray clocks, the clock of tracker 7 is in 2004.
    async fn new(database: TestDatabase, clocks: Clocks) -> Self {
        let url = DatabaseUrl::parse(&database.url()).unwrap();
        let service = Service::start(&database.url(), &[("ODOGRAPH_TIME_WINDOW_PAST", "4000d")]).await;
        let plan =
            Plan { devices: 4, packets: Some(6), first_device: 5, clocks, ..Plan::new(service.trackers, START_MS) };
        let plan = Plan { lose_answer_every: 4, reconnect_every: 3, ..plan };
        let reports = odograph_fleet::run(plan, Arc::new(Progress::default()), CancellationToken::new()).await;
        service.settled().await;
        service.stop().await;
        database.execute("CREATE TABLE kept AS SELECT * FROM positions").await;
        Self { database, url, reports }
    }

    async fn audit(&self) -> Findings {
        audit(&self.url, &self.reports).await.unwrap()
    }

    /// Returns the audit's findings after a statement, and undoes the statement.
    async fn after(&self, statement: &str) -> FindingCounts {
        self.database.execute(statement).await;
        let findings = self.audit().await;
        assert_eq!(findings.clean(), findings.examples.is_empty(), "{statement}: {findings:?}");
        self.database.execute("DELETE FROM positions; INSERT INTO positions SELECT * FROM kept").await;
        let Findings { missing, twice, wrong, unknown, .. } = findings;
        FindingCounts { missing, twice, wrong, unknown }
    }

    /// Returns the key of a row that has everything: a fix, typed elements and other elements.
    async fn full_row(&self) -> String {
        let query = "SELECT imei, fingerprint FROM positions WHERE io IS NOT NULL AND valid AND codec = 142 LIMIT 1";
        let row = &self.database.rows(query).await[0];
        format!("imei = {} AND fingerprint = {}", row["imei"], row["fingerprint"])
    }

    /// Returns the columns and their types.
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
struct FindingCounts {
    missing: u64,
    twice: u64,
    wrong: u64,
    unknown: u64,
}

const CLEAN: FindingCounts = FindingCounts { missing: 0, twice: 0, wrong: 0, unknown: 0 };
const START_MS: u64 = 1_780_056_000_000;

#[tokio::test]
async fn a_changed_table_is_found_in_the_hypertable() {
    every_change_is_found(AuditedFleet::new(TestDatabase::postgres().await, Clocks::Right).await).await;
}

#[tokio::test]
async fn a_changed_table_is_found_in_the_embedded_store() {
    every_change_is_found(AuditedFleet::new(TestDatabase::sqlite(), Clocks::Right).await).await;
}

async fn every_change_is_found(fleet: AuditedFleet) {
    let findings = fleet.audit().await;
    assert!(findings.clean(), "{findings:?}");
    assert_eq!((findings.acknowledged, findings.stored), (240, 240));

    let row = fleet.full_row().await;
    let removed = fleet.after(&format!("DELETE FROM positions WHERE {row}")).await;
    assert_eq!(removed, FindingCounts { missing: 1, ..CLEAN });
    let all = fleet.after("DELETE FROM positions").await;
    assert_eq!(all, FindingCounts { missing: 240, ..CLEAN });

    // Every column but the key and the receive time, which is the service's own.
    let columns = fleet.columns().await;
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
        assert_eq!(fleet.after(&update(&changed)).await, FindingCounts { wrong: 1, ..CLEAN }, "{name} = {changed}");
        let empty = fleet.database.rows(&format!("SELECT 1 AS n FROM positions WHERE {row} AND {name} IS NULL")).await;
        if empty.is_empty() && !matches!(name.as_str(), "valid" | "faulty") {
            assert_eq!(fleet.after(&update("NULL")).await, FindingCounts { wrong: 1, ..CLEAN }, "{name} = NULL");
        }
    }

    let change = |what: &str| format!("UPDATE positions SET {what} WHERE {row}");
    assert_eq!(fleet.after(&change("imei = 1")).await, FindingCounts { missing: 1, ..CLEAN });
    assert_eq!(fleet.after(&change("fingerprint = fingerprint + 1")).await, FindingCounts { wrong: 1, ..CLEAN });
    let (a_little, a_second) = match fleet.database {
        TestDatabase::Postgres { .. } => ("ts + INTERVAL '1 microsecond'", "ts + INTERVAL '1.7 seconds'"),
        TestDatabase::Sqlite { .. } => ("ts + 1", "ts + 1700"),
    };
    for later in [a_little, a_second] {
        let moved = fleet.after(&change(&format!("ts = {later}"))).await;
        assert_eq!(moved, FindingCounts { missing: 1, unknown: 1, ..CLEAN }, "{later}");
    }

    // The key forbids an exact duplicate, so a duplicate has another fingerprint or another time.
    let copy = |replaced: &str, by: &str| {
        let columns = names.join(", ");
        let values = columns.replacen(replaced, by, 1);
        format!("INSERT INTO positions ({columns}) SELECT {values} FROM positions WHERE {row}")
    };
    let doubled = fleet.after(&copy("fingerprint", "fingerprint + 1")).await;
    assert_eq!(doubled, FindingCounts { twice: 1, ..CLEAN });
    let again = fleet.after(&copy(" ts,", &format!(" {a_second},"))).await;
    assert_eq!(again, FindingCounts { unknown: 1, ..CLEAN });

    assert!(fleet.audit().await.clean(), "every change was undone");
}

#[tokio::test]
async fn only_what_was_acknowledged_has_to_be_there_and_only_what_was_sent_may() {
    let mut fleet = AuditedFleet::new(TestDatabase::sqlite(), Clocks::Right).await;
    let reports = |fleet: &AuditedFleet, acknowledged, unanswered| {
        let routes = fleet.reports.iter().map(|report| report.route);
        routes.map(|route| TrackerReport::new(route, acknowledged, unanswered)).collect()
    };
    for (acknowledged, unanswered, missing, unknown) in
        [(60, 0, 0, 0), (40, 20, 0, 0), (60, 5, 0, 0), (65, 0, 20, 0), (50, 0, 0, 40)]
    {
        fleet.reports = reports(&fleet, acknowledged, unanswered);
        let findings = fleet.audit().await;
        assert_eq!((findings.missing, findings.unknown), (missing, unknown), "{acknowledged} + {unanswered}");
        assert_eq!((findings.acknowledged, findings.stored), (4 * acknowledged, 240));
    }
}

#[tokio::test]
async fn an_audit_waits_for_what_is_still_being_written() {
    let fleet = AuditedFleet::new(TestDatabase::sqlite(), Clocks::Right).await;
    let (url, reports) = (&fleet.url, &fleet.reports);
    fleet.database.execute("DELETE FROM positions WHERE codec = 8").await;
    assert_eq!(settled(url, reports, Duration::ZERO).await.unwrap().missing, 120);
    let (findings, ()) = tokio::join!(settled(url, reports, Duration::from_mins(1)), async {
        fleet.database.execute("INSERT INTO positions SELECT * FROM kept WHERE codec = 8").await;
    });
    assert!(findings.unwrap().clean());
}

#[tokio::test]
async fn what_is_in_quarantine_is_not_lost() {
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        let fleet = AuditedFleet::new(database, Clocks::SomeStray).await;
        let findings = fleet.audit().await;
        assert!(findings.clean(), "{findings:?}");
        assert_eq!((findings.acknowledged, findings.quarantined, findings.stored), (240, 60, 180));

        let database = &fleet.database;
        database.execute("DELETE FROM quarantined_records WHERE record_index = 3").await;
        let findings = fleet.audit().await;
        assert!(!findings.clean() && findings.missing >= 6, "{findings:?}");
        assert_eq!(findings.missing + findings.quarantined, 60);

        // Records of a whole frame in quarantine count as well.
        let route = fleet.reports[2].route;
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
        let findings = fleet.audit().await;
        assert!(findings.clean() && findings.quarantined == 60, "{findings:?}");
    }
}
