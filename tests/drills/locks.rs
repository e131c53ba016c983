//! PostgreSQL runs and refuses: a session ended while idle in its transaction, a deadlock, a lock timeout, a full disk.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use odograph_testkit::{PrivateServer, TestDatabase, eventually};

use crate::moments::{blocker, connect, until_row};
use crate::report::Outcome;
use crate::setup::DrillSetup;
use crate::wire::{Hold, Wire};

crate::drills! {
    "pg-idle-in-transaction", long, idle_in_transaction, "the session is ended before its COMMIT, by an operator and by the server's timeout";
    "pg-deadlock", long, deadlock, "PostgreSQL picks the service's session to end a deadlock";
    "pg-lock-timeout", long, lock_timeout, "another session locks positions for longer than the service waits";
    "pg-disk-full", long, disk_full, "the file system under the tables is full, and has room again later";
}

async fn idle_in_transaction(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let wire = Wire::new(&setup.server.url);
    let url = format!("{}?options=-c%20idle_in_transaction_session_timeout%3D700ms", wire.url(&database.url()));
    let serve = setup.launch(&url).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    let client = connect(&database.url()).await;
    let (mut by_hand, mut by_server) = (0, 0);
    for turn in 0..setup.times(2, 10) {
        load.goes_on(setup.random.u64(300..1_500)).await;
        wire.hold(Hold::Commit);
        eventually("a commit", async || (wire.held() > turn).then_some(())).await;
        let backend: i32 = until_row(&client, "the session", IDLE).await.get(0);
        if turn % 2 == 0 {
            let ended = client.query_one("SELECT pg_terminate_backend($1)", &[&backend]).await.unwrap();
            by_hand += u64::from(ended.get::<_, bool>(0));
        }
        let gone = format!("SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {backend})");
        until_row(&client, "the server to end the session", &gone).await;
        by_server += turn % 2;
    }
    load.goes_on(500).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("ended by hand", by_hand), ("ended by the server", by_server)] }
}

async fn deadlock(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    load.goes_on(2_000).await;
    let client = connect(&database.url()).await;
    let other = connect(&database.url()).await;
    // PostgreSQL picks the session that checks for the deadlock first: this one must not.
    other.batch_execute("SET deadlock_timeout = '10min'").await.unwrap();
    for _ in 0..setup.times(1, 5) {
        other.batch_execute("BEGIN; SELECT FROM latest_positions FOR UPDATE").await.unwrap();
        let waits = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
            AND application_name = 'odograph' AND wait_event_type = 'Lock' LIMIT 1";
        until_row(&client, "the service to wait for a latest position", waits).await;
        // The service holds its checkpoint, and this session now waits for it.
        other.batch_execute("SELECT FROM ingest_checkpoints FOR UPDATE; ROLLBACK").await.unwrap();
        load.goes_on(setup.random.u64(1_000..3_000)).await;
    }
    let findings = setup.end(serve, load, &database).await;
    let deadlocks = logged(&setup.server.directory().join("log"), &database, "deadlock detected");
    Outcome { findings, faults: vec![("deadlocks", deadlocks)] }
}

async fn lock_timeout(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let url = format!("{}?options=-c%20lock_timeout%3D400ms", database.url());
    let serve = setup.launch(&url).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    let log = setup.server.directory().join("log");
    let timeouts = || logged(&log, &database, "canceling statement due to lock timeout");
    for _ in 0..setup.times(1, 3) {
        load.goes_on(setup.random.u64(500..1_500)).await;
        let (blocked, before) = (blocker(&database.url()).await, timeouts());
        eventually("the service to lose patience twice", async || (timeouts() > before + 1).then_some(())).await;
        load.goes_on(setup.random.u64(500..1_500)).await;
        drop(blocked);
        serve.is_ready().await;
    }
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("lock timeouts", timeouts())] }
}

async fn disk_full(mut setup: DrillSetup) -> Outcome {
    let server = PrivateServer::new("drill-full");
    let small = SmallTablespace::mount(&server);
    let admin = connect(&server.url).await;
    admin.batch_execute("CREATE TABLESPACE small LOCATION '/mnt'").await.unwrap();
    admin.batch_execute("ALTER ROLE odograph SET default_tablespace = 'small'").await.unwrap();
    let database = TestDatabase::postgres_in(&server.url).await;
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    let refused = || logged(&server.directory().join("log"), &database, "No space left on device");
    for _ in 0..setup.times(1, 3) {
        load.goes_on(setup.random.u64(1_000..3_000)).await;
        small.fill();
        let before = refused();
        eventually("the server to run out of room", async || (refused() > before).then_some(())).await;
        serve.names_reason("store_down").await;
        load.goes_on(setup.random.u64(1_000..3_000)).await;
        small.make_room();
        serve.is_ready().await;
    }
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("times that the server had no room", refused())] }
}

/// A small file system inside the mount namespace of a private server. It disappears with the server.
struct SmallTablespace {
    filler: PathBuf,
}

impl SmallTablespace {
    fn mount(server: &PrivateServer) -> Self {
        let directory = server.directory();
        let pid = std::fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        let owner = std::fs::metadata(directory.join("data")).unwrap();
        let options = format!("size=48m,mode=700,uid={},gid={}", owner.uid(), owner.gid());
        let root = Path::new(SERVICES).join("rootfs/mnt").canonicalize().unwrap();
        let mounted = Command::new("nsenter")
            .args(["--target", &pid, "--mount", "mount", "-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(root)
            .status();
        assert!(mounted.unwrap().success(), "a file system cannot be mounted for the server");
        Self { filler: PathBuf::from(format!("/proc/{pid}/root/mnt/filler")) }
    }

    /// Fills the file system to the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(&self.filler).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        let error = file.write_all(&[1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        std::fs::remove_file(&self.filler).unwrap();
    }
}

/// Counts the lines with this text that a private server logged about a database.
fn logged(log: &Path, database: &TestDatabase, what: &str) -> u64 {
    let url = database.url();
    let (_, name) = url.rsplit_once('/').unwrap();
    let log = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    log.lines().filter(|line| line.contains(&format!("] {name} ")) && line.contains(what)).count() as u64
}

const SERVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/services");
/// Sessions idle in a transaction for longer than a lane takes between two statements.
const IDLE: &str = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
    AND application_name = 'odograph' AND state = 'idle in transaction' \
    AND state_change < clock_timestamp() - INTERVAL '100 ms' LIMIT 1";
