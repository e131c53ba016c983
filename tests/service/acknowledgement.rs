//! A tracker gets its answer after the sync, never before it, and never if the sync failed. The system calls of the
//! real binary show it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use odograph_testkit::{
    Service, ServiceProcess, TestDatabase, Tracker, count, eventually, frame, imei, record, service::AFTER_COMMIT,
};
use teltonika_codecs::encode;

use crate::ODOGRAPH;

const T: u64 = 1_780_000_000_000;

/// `strace` on all threads of a process.
struct Strace(Child);

impl Strace {
    /// Attaches to all threads, and returns once it has. `more` are arguments, such as faults to inject.
    async fn attach(process: &ServiceProcess, output: &Path, more: &[&str]) -> Self {
        let pid = process.pid().to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-s", "64", "-o", output.to_str().unwrap(), "-p", &pid]).args(more);
        let mut child = strace.stderr(Stdio::piped()).spawn().expect("strace is missing: apt-get install strace");
        let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        // A thread is traced once the kernel names its tracer.
        eventually("all threads to be traced", async || {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let traced = |task: std::fs::DirEntry| {
                let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
                !status.contains("TracerPid:\t0\n")
            };
            tasks.map(Result::unwrap).all(traced).then_some(())
        })
        .await;
        Self(child)
    }

    fn detach(mut self) {
        assert!(Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap().success());
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn no_answer_leaves_before_the_sync_of_its_frame() {
    const FRAMES: u64 = 30;
    let (database, traces) = (TestDatabase::sqlite(), tempfile::tempdir().unwrap());
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[]);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    let output = traces.path().join("trace");
    let calls = "trace=pwrite64,pwritev,write,fdatasync,fsync,sendto,recvfrom,writev,sendmsg";
    let strace = Strace::attach(&process, &output, &["-e", calls]).await;
    for n in 0..FRAMES {
        assert_eq!(tracker.deliver(&frame(&[record(T + n * 1000, 1)])).await, 1);
    }
    strace.detach();

    // One frame at a time: received, written, synced, answered.
    let trace = std::fs::read_to_string(&output).unwrap();
    let (mut stage, mut answers) = (Stage::Idle, 0);
    for line in trace.lines() {
        let call = line.split_once(' ').unwrap().1.trim_start();
        let is_segment = call.contains(".seg>");
        let done = !call.contains("<unfinished");
        stage = match stage {
            _ if call.contains("recvfrom") && call.contains(r#""\0\0\0\0"#) => Stage::Received,
            Stage::Received if call.starts_with("pwrite64(") && is_segment => Stage::Written,
            // The end of an unfinished call follows later, and names no file.
            Stage::Written if call.starts_with("fdatasync(") && is_segment && done => Stage::Synced,
            Stage::Written if call.contains("fdatasync resumed") => Stage::Synced,
            stage => stage,
        };
        if call.starts_with("sendto(") && call.contains(r#""\0\0\0\1", 4,"#) {
            assert_eq!(stage, Stage::Synced, "an answer without a sync before it:\n{trace}");
            (stage, answers) = (Stage::Idle, answers + 1);
        }
    }
    assert_eq!(answers, FRAMES, "{trace}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Received,
    Written,
    Synced,
}

#[tokio::test]
async fn after_a_failed_sync_nobody_is_answered_and_the_process_ends() {
    let (database, traces) = (TestDatabase::sqlite(), tempfile::tempdir().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let own = [("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())];
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &own);
    let address = process.trackers.to_string();
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T, 1)])).await, 1);
    process.settled().await;
    let fault = "inject=fdatasync:error=EIO";
    let _strace = Strace::attach(&process, &traces.path().join("trace"), &["-e", "trace=fdatasync", "-e", fault]).await;
    tracker.send(&frame(&[record(T + 1000, 1)])).await;
    assert!(tracker.is_closed_unanswered().await);
    let logs = process.wait();
    assert_eq!(logs.0, Some(1), "{:?}", logs.1);
    assert!(logs.1.iter().any(|line| line.contains("the journal failed")), "{:?}", logs.1);

    // Opening the journal again shows what the disk holds. The tracker resends what was not acknowledged.
    let process = ODOGRAPH.serve(&database.url(), &address, &own);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T + 1000, 1)])).await, 1);
    process.settled().await;
    assert_eq!(database.positions().await, 2);
}

#[tokio::test]
async fn a_tracker_that_does_not_wait_is_answered_in_order_and_shares_the_syncs() {
    for mode in [("ODOGRAPH_ACK_AFTER", "journal"), AFTER_COMMIT] {
        let database = TestDatabase::sqlite();
        let service = Service::start(&database.url(), &[mode]).await;
        // Far more frames than may be unanswered, all at once, each with another count.
        let frames: Vec<Vec<u8>> =
            (0..300).map(|n| frame(&vec![record(T + n * 1000, 1); usize::try_from(n % 7).unwrap() + 1])).collect();
        let glued = [&encode::login(imei(1))[..], &frames.concat()].concat();
        let mut tracker = Tracker::connect(service.trackers).await;
        tracker.send(&glued).await;
        assert_eq!(tracker.receive::<1>().await.unwrap(), [1]);
        for n in 0..300_u32 {
            assert_eq!(u32::from_be_bytes(tracker.receive().await.unwrap()), n % 7 + 1, "frame {n}, {mode:?}");
        }
        service.settled().await;
        assert_eq!(database.positions().await, 300);
        if mode != AFTER_COMMIT {
            let syncs = count(service.admin, "odograph_journal_sync_duration_seconds_count").await;
            assert!(syncs < 150, "{syncs} syncs for 300 frames");
        }
        service.stop().await;
    }
}
