//! A log that cannot be written costs log lines and nothing else.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Stdio};

use odograph_testkit::{Launch, SmallDisk, TestDatabase, Tracker, eventually, frame, framed, imei, metric, record};
use serde_json::Value as Json;

use crate::ODOGRAPH;

const T: u64 = 1_780_000_000_000;

/// A service whose log is a pipe. Killed when dropped.
struct Piped {
    child: Child,
    log: Option<BufReader<ChildStderr>>,
    trackers: SocketAddr,
    admin: SocketAddr,
    _data: tempfile::TempDir,
}

impl Piped {
    fn start(database: &TestDatabase) -> Self {
        let data = tempfile::tempdir().unwrap();
        let variables = [
            ("DATABASE_URL", database.url()),
            ("ODOGRAPH_DATA_DIR", data.path().display().to_string()),
            ("ODOGRAPH_LISTEN", "127.0.0.1:0".to_owned()),
            ("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("ODOGRAPH_LOG", "debug".to_owned()),
            ("ODOGRAPH_LOG_FORMAT", "json".to_owned()),
        ];
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut child = ODOGRAPH.command(&["serve"], &variables).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let up = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the service ended");
            let fields: Json = serde_json::from_str(&line).unwrap();
            if fields["trackers"].is_string() {
                break fields;
            }
        };
        let address = |name: &str| up[name].as_str().unwrap().parse().unwrap();
        let (trackers, admin) = (address("trackers"), address("admin"));
        Self { child, log: Some(log), trackers, admin, _data: data }
    }

    fn terminate(mut self) -> Option<i32> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)
            .unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Logs in, delivers one record and leaves, this many times: a few log lines each.
async fn sessions(trackers: SocketAddr, count: u64) {
    for number in 0..count {
        let mut tracker = Tracker::login(trackers, &imei(number % 50).to_string()).await;
        assert_eq!(tracker.deliver(&frame(&[record(T + number * 1000, 1)])).await, 1);
    }
}

async fn lost_lines(admin: SocketAddr) -> f64 {
    metric(admin, "odograph_log_lines_lost_total").await
}

#[tokio::test]
async fn a_log_pipe_whose_reader_is_gone_costs_lines_and_nothing_else() {
    let database = TestDatabase::sqlite();
    let mut service = Piped::start(&database);
    service.log = None;
    sessions(service.trackers, 20).await;
    eventually("lost lines", async || (lost_lines(service.admin).await > 20.0).then_some(())).await;
    assert_eq!(service.terminate(), Some(0));
}

#[tokio::test]
async fn a_log_pipe_that_nobody_reads_holds_up_no_session() {
    let database = TestDatabase::sqlite();
    let service = Piped::start(&database);
    // A pipe holds 64 KiB, and a session writes about 500 bytes.
    sessions(service.trackers, 400).await;
    assert_eq!(service.terminate(), Some(0));
}

#[tokio::test]
async fn a_full_log_disk_costs_lines_and_says_how_many() {
    let Some(disk) = SmallDisk::new(64 << 10) else { return };
    let database = TestDatabase::sqlite();
    let data = tempfile::tempdir().unwrap();
    let log = disk.path().join("serve.log");
    let launch = Launch::new(ODOGRAPH, &database.url(), data.path()).with("ODOGRAPH_LOG", "debug");
    let process = launch.start(&log).await;
    let filler = disk.path().join("filler");
    let mut rest = vec![0_u8; 64 << 10];
    while std::fs::write(&filler, &rest).is_err() {
        rest.truncate(rest.len() - 4096);
    }
    eventually("a full disk", async || {
        sessions(process.trackers, 20).await;
        (lost_lines(process.admin).await > 100.0).then_some(())
    })
    .await;
    disk.grow(8 << 20);
    let said = async || process.log().contains("log lines were lost").then_some(());
    eventually("the number of lost lines", said).await;
    sessions(process.trackers, 20).await;
    assert_eq!(process.terminate(), Some(0));
}

#[tokio::test]
async fn a_peer_causes_a_few_log_lines_and_no_more() {
    let database = TestDatabase::sqlite();
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[]);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    for _ in 0..300 {
        // Codec 8 says one record, and none is there.
        assert_eq!(tracker.deliver(&framed(&[0x08, 1, 1])).await, 1);
    }
    for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"] {
        let mut stranger = Tracker::connect(process.trackers).await;
        stranger.send(request).await;
        assert!(stranger.is_closed_unanswered().await);
    }
    process.settled().await;
    let logs = async || {
        let logs = process.logs();
        let named = |name: &str| logs.iter().filter(|line| line.contains(name)).count();
        (named("\"looks_like\":\"HTTP\"") == 1 && named("\"looks_like\":\"TLS\"") == 1)
            .then(|| named("cannot be decoded; it goes to quarantine"))
    };
    let lines = eventually("a line about each stranger", logs).await;
    assert!((1..=20).contains(&lines), "{lines} lines about 300 frames");
    let seen = database.rows("SELECT seen FROM quarantined_records").await;
    assert_eq!(seen[0]["seen"], 300);
    assert_eq!(process.count("odograph_quarantine_entries_total").await, 300);
}
