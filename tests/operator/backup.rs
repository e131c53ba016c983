//! Runs the commands of docs/operations.md verbatim: an older backup replaces the database while trackers send, and the
//! journal adds the missing rows.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use odograph::store::DatabaseUrl;
use odograph_fleet::{Plan, Progress, audit};
use odograph_testkit::{Service, TestDatabase, count, eventually, readiness, server_url};
use tokio_util::sync::CancellationToken;

use crate::ODOGRAPH;

const T: u64 = 1_780_000_000_000;

/// A shell in its own directory, with PostgreSQL's programs in the server's version.
struct Shell {
    directory: tempfile::TempDir,
    database: String,
    server: String,
}

impl Shell {
    fn new(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for program in ["psql", "pg_dump", "pg_restore"] {
            let file = directory.path().join(program);
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services/rootfs");
            let script = format!("#!/bin/sh\nexec chroot {} {SERVER_PROGRAMS}/{program} \"$@\"\n", root.display());
            // If the server is not that of scripts/services, the machine's own programs must do.
            if root.join(&SERVER_PROGRAMS[1..]).join(program).exists() {
                std::fs::write(&file, script).unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        let binary = PathBuf::from(ODOGRAPH.path());
        std::os::unix::fs::symlink(binary, directory.path().join("odograph")).unwrap();
        let (server, database) = url.rsplit_once('/').unwrap();
        Self { directory, database: database.to_owned(), server: server.to_owned() }
    }

    /// Runs a block of the documentation. The database is called telemetry there.
    fn run(&self, block: &str, more: &[(&str, &str)]) -> Output {
        let commands = block.replace("telemetry", &self.database);
        let path = format!("{}:{}", self.directory.path().display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &commands])
            .current_dir(self.directory.path())
            .env("PATH", path)
            .env("SERVER", &self.server)
            .env("DATABASE_URL", format!("{}/{}", self.server, self.database))
            .envs(more.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

/// The fenced block after the mark in the documentation.
fn block(name: &str) -> &'static str {
    let mark = format!("<!-- run by tests/operator/backup.rs: {name} -->\n```\n");
    let (_, behind) = include_str!("../../docs/operations.md").split_once(&mark).unwrap();
    behind.split_once("\n```").unwrap().0
}

/// Runs a block next to the service, which runs on this thread.
async fn run(shell: &Arc<Shell>, name: &'static str, admin: String) {
    let shell = Arc::clone(shell);
    let running = move || shell.run(block(name), &[("ODOGRAPH_ADMIN_LISTEN", &admin)]);
    tokio::task::spawn_blocking(running).await.unwrap();
}

#[tokio::test]
async fn an_older_backup_restored_by_the_documented_commands_is_filled_up_by_the_journal() {
    let database = TestDatabase::postgres_in(&server_url()).await;
    let shell = Arc::new(Shell::new(&database.url()));
    let service = Service::start(&database.url(), &[]).await;
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let plan = Plan { devices: 30, records: 5, packets: None, lose_answer_every: 10, ..Plan::new(service.trackers, T) };
    let fleet = tokio::spawn(odograph_fleet::run(plan, Arc::clone(&progress), stop.clone()));
    let load = async |more: u64| {
        let before = progress.read().1;
        eventually("load", async || (progress.read().1 > before + more).then_some(())).await;
    };
    load(2_000).await;
    run(&shell, "backup", String::new()).await;
    let dumped = database.positions().await;
    load(3_000).await;
    run(&shell, "restore", service.admin.to_string()).await;
    load(2_000).await;
    stop.cancel();
    let reports = fleet.await.unwrap();
    service.settled().await;
    let admin = service.admin;
    assert!(count(admin, "odograph_records_recovered_total").await >= 3_000, "drained again");
    assert_eq!(count(admin, "odograph_journal_gap_bytes_total").await, 0);
    eventually("readiness", async || readiness(admin).await.2.is_empty().then_some(())).await;
    let findings = audit::audit(&DatabaseUrl::parse(&database.url()).unwrap(), &reports).await.unwrap();
    assert!(findings.acknowledged > 7_000, "{findings:?}");
    assert!(findings.clean(), "{findings:?}");
    let broken = Broken(&shell);
    let left = broken.rows();
    assert!(left > dumped, "the earlier database is kept under another name, with {left} rows");
    service.stop().await;
}

/// The database that the restored one replaced.
struct Broken<'a>(&'a Shell);

impl Broken<'_> {
    fn rows(&self) -> u64 {
        let commands = "psql -q \"$SERVER/postgres\" -c 'ALTER DATABASE telemetry_broken ALLOW_CONNECTIONS true'
            psql -XAtq \"$SERVER/telemetry_broken\" -c 'SELECT count(*) FROM positions'";
        String::from_utf8(self.0.run(commands, &[]).stdout).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        self.0.run("psql -q \"$SERVER/postgres\" -c 'DROP DATABASE IF EXISTS telemetry_broken WITH (FORCE)'", &[]);
    }
}

const SERVER_PROGRAMS: &str = "/usr/lib/postgresql/17/bin";
