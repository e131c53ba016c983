//! The setup of a drill: its directory, its server and its seed. And its end, which is the same for every drill.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use odograph::store::DatabaseUrl;
use odograph_fleet::audit;
use odograph_fleet::audit::Findings;
use odograph_fleet::{Plan, TrackerReport};
use odograph_testkit::{Launch, PrivateServer, ServiceProcess, TestDatabase, eventually, get};

use crate::load::Load;
use crate::{ODOGRAPH, SETTLE};

pub(crate) struct DrillSetup {
    name: &'static str,
    pub(crate) short: bool,
    /// Every choice of the drill comes from here.
    pub(crate) random: fastrand::Rng,
    /// Logs and data. It is kept when the drill is broken.
    pub(crate) directory: PathBuf,
    /// A PostgreSQL server that drills may stop. They run one after the other.
    pub(crate) server: Rc<PrivateServer>,
    logs: Cell<u32>,
}

impl DrillSetup {
    pub(crate) fn new(name: &'static str, seed: u64, short: bool, server: Rc<PrivateServer>) -> Self {
        let directory = format!("drills/{name}-{seed}-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        let random = fastrand::Rng::with_seed(seed ^ u64::from(crc32fast::hash(name.as_bytes())) << 32);
        Self { name, short, random, directory, server, logs: Cell::new(0) }
    }

    /// Returns the first number in the short version and the second in the long version.
    pub(crate) fn times(&self, short: u64, long: u64) -> u64 {
        if self.short { short } else { long }
    }

    /// Creates a migrated database for this drill.
    pub(crate) async fn database(&self) -> TestDatabase {
        TestDatabase::postgres_in(&self.server.url).await
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Returns the path of the next log file.
    pub(crate) fn next_log(&self) -> PathBuf {
        let number = self.logs.get() + 1;
        self.logs.set(number);
        self.directory.join(format!("serve-{number:03}.log"))
    }

    pub(crate) fn launch(&self, database_url: &str) -> Launch {
        Launch::new(ODOGRAPH, database_url, &self.data())
    }

    /// 100 trackers that lose every tenth answer and reconnect after fifty packets. The rate leaves room for
    /// faults.
    pub(crate) fn plan(&mut self, target: SocketAddr) -> Plan {
        Plan {
            devices: 100,
            records: 10,
            packets: None,
            rate: Some(4_000.0),
            lose_answer_every: 10,
            reconnect_every: 50,
            first_device: self.random.u32(0..1_000_000) * 100,
            ..Plan::new(target, START_MS)
        }
    }

    pub(crate) fn load(&mut self, target: SocketAddr) -> Load {
        Load::start(self.plan(target))
    }

    pub(crate) fn say(&self, what: &str) {
        eprintln!("        {}: {what}", self.name);
    }

    /// Ends a drill: the load stops, everything waiting reaches the database, and the service shuts down cleanly.
    pub(crate) async fn end(&self, serve: ServiceProcess, load: Load, database: &TestDatabase) -> Findings {
        let reports = load.stop().await;
        self.finish(serve, &reports, database).await
    }

    /// Ends a drill whose load has already stopped.
    pub(crate) async fn finish(
        &self,
        serve: ServiceProcess,
        reports: &[TrackerReport],
        database: &TestDatabase,
    ) -> Findings {
        serve.settled_within(SETTLE).await;
        conserved(serve.admin).await;
        serve.terminate_in_order().await;
        self.audit(database, reports).await
    }

    /// Audits the rows and the latest positions after the service has stopped.
    pub(crate) async fn audit(&self, database: &TestDatabase, reports: &[TrackerReport]) -> Findings {
        let findings = self.audit_rows(database, reports).await;
        assert_eq!(findings.stored, database.positions().await, "the table holds rows that the fleet did not send");
        let stale = database.rows(STALE_LATEST).await;
        assert!(stale.is_empty(), "latest positions that are not the latest: {stale:?}");
        findings
    }

    pub(crate) async fn audit_rows(&self, database: &TestDatabase, reports: &[TrackerReport]) -> Findings {
        self.say("audit");
        audit::audit(&DatabaseUrl::parse(&database.url()).unwrap(), reports).await.unwrap()
    }
}

/// Asserts that a scrape shows as many records at the sources as at the sinks.
async fn conserved(admin: SocketAddr) {
    let (_, text) = get(admin, "/metrics").await;
    let sum = |name: &str| -> u64 {
        let name = format!("odograph_records_{name}");
        let values = text.lines().filter_map(|line| line.strip_prefix(&name)?.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    };
    let sources = sum("recovered_total") + sum("journaled_total");
    let sinks: u64 = ["committed_total", "duplicate_total", "quarantined_total", "waiting"].map(sum).iter().sum();
    assert_eq!(sources, sinks, "recovered and journaled against what became of them");
}

/// Returns the single number that a query gives.
pub(crate) async fn number(database: &TestDatabase, query: &str) -> u64 {
    let rows = database.rows(query).await;
    rows[0].values().next().unwrap().as_u64().unwrap_or_else(|| panic!("{query}: {rows:?}"))
}

/// Waits until a condition in SQL is true.
pub(crate) async fn until_true(database: &TestDatabase, what: &str, query: &str) {
    eventually(what, async || (number(database, &format!("SELECT ({query})::integer AS n")).await == 1).then_some(()))
        .await;
}

/// 2026-05-28. The service accepts any time unless the drill is about clocks.
pub(crate) const START_MS: u64 = 1_780_000_000_000;

/// Devices whose latest position is not their latest valid row.
const STALE_LATEST: &str = "SELECT l.imei FROM latest_positions l FULL JOIN \
    (SELECT DISTINCT ON (imei) imei, ts, fingerprint FROM positions WHERE valid AND NOT faulty \
     ORDER BY imei, ts DESC, fingerprint DESC) p USING (imei) \
    WHERE (l.ts, l.fingerprint) IS DISTINCT FROM (p.ts, p.fingerprint)";
