//! The disk under the journal: full, read-only, failing writes and syncs, a torn write.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use odograph_testkit::{ServiceProcess, eventually};
use serde_json::Value as Json;

use crate::moments::blocker;
use crate::report::Outcome;
use crate::setup::DrillSetup;
use crate::strace::{Strace, died_in, file_of, injected};

crate::drills! {
    "disk-full", long, full, "the file system of the journal is full, and has room again later";
    "disk-read-only", long, read_only, "the file system of the journal becomes read-only, also for a start";
    "disk-write-error", long, write_error, "writes of the journal fail with EIO";
    "disk-fsync-error", short, sync_error, "syncs of the journal fail with EIO";
    "disk-torn-write", long, torn_write, "power is cut in a write: half of the last group is on the disk";
}

async fn full(mut setup: DrillSetup) -> Outcome {
    let disk = Disk::mount(&setup, "2m");
    let database = setup.database().await;
    let launch = setup.launch(&database.url()).data(&disk.0);
    let serve = launch.with("ODOGRAPH_JOURNAL_MAX_SIZE", "8MiB").start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    let mut full = 0;
    for mebibytes in [3, 4, 5].into_iter().take(usize::try_from(setup.times(1, 3)).unwrap()) {
        load.goes_on(500).await;
        // So that nothing is released.
        let blocked = blocker(&database.url()).await;
        serve.names_reason("journal_full").await;
        eventually("trackers to be held", async || {
            let before = load.acknowledged();
            tokio::time::sleep(Duration::from_secs(1)).await;
            (load.acknowledged() == before).then_some(())
        })
        .await;
        full += 1;
        disk.remount(&format!("size={mebibytes}m"));
        load.goes_on(500).await;
        drop(blocked);
        serve.is_ready().await;
    }
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("times that the disk was full and nobody was answered", full)] }
}

async fn read_only(mut setup: DrillSetup) -> Outcome {
    let disk = Disk::mount(&setup, "64m");
    let database = setup.database().await;
    let launch = setup.launch(&database.url()).data(&disk.0).with("ODOGRAPH_JOURNAL_MAX_SIZE", "32MiB");
    let mut serve = launch.start(&setup.next_log()).await;
    let launch = launch.listen(&serve.trackers.to_string());
    let load = setup.load(serve.trackers);
    let (mut failed, mut refused) = (0, 0);
    for _ in 0..setup.times(1, 3) {
        load.goes_on(setup.random.u64(500..2_000)).await;
        // The kernel keeps a file system writable while files of it are open for that, so the change itself is injected.
        failed += fails(&setup, &mut serve, "pwrite64", "EROFS").await;
        disk.remount("ro");
        let mut starting = launch.spawn(&setup.next_log());
        let status = starting.ends().await;
        assert!(status.code() == Some(1) && starting.log().contains("Read-only file system"), "{}", starting.log());
        refused += 1;
        disk.remount("rw");
        serve = launch.start(&setup.next_log()).await;
    }
    load.goes_on(500).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("writes refused", failed), ("starts refused", refused)] }
}

async fn write_error(setup: DrillSetup) -> Outcome {
    errors(setup, "pwrite64").await
}

async fn sync_error(setup: DrillSetup) -> Outcome {
    errors(setup, "fdatasync").await
}

async fn errors(mut setup: DrillSetup, call: &str) -> Outcome {
    let database = setup.database().await;
    let launch = setup.launch(&database.url());
    let mut serve = launch.start(&setup.next_log()).await;
    let launch = launch.listen(&serve.trackers.to_string());
    let load = setup.load(serve.trackers);
    let mut failed = 0;
    for _ in 0..setup.times(1, 5) {
        load.goes_on(setup.random.u64(300..2_000)).await;
        failed += fails(&setup, &mut serve, call, "EIO").await;
        serve = launch.start(&setup.next_log()).await;
    }
    load.goes_on(500).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("calls that failed", failed)] }
}

/// Makes every such call fail from now on. The service must log it and end. Returns how many calls failed.
async fn fails(setup: &DrillSetup, serve: &mut ServiceProcess, call: &str, error: &str) -> u64 {
    let fault = format!("{call}:error={error}");
    let strace = Strace::inject(serve, &setup.directory, call, &fault).await;
    let status = serve.ends().await;
    assert_eq!(status.code(), Some(1), "{}", serve.log());
    assert!(serve.log().contains("the journal failed"), "{}", serve.log());
    injected(&strace.log().await)
}

async fn torn_write(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let launch = setup.launch(&database.url());
    let mut serve = launch.start(&setup.next_log()).await;
    let launch = launch.listen(&serve.trackers.to_string());
    let load = setup.load(serve.trackers);
    let (mut torn, mut bytes) = (0, 0);
    while torn < setup.times(1, 8) {
        load.goes_on(setup.random.u64(300..1_500)).await;
        let fault = format!("fdatasync:signal=KILL:when={}", setup.random.u32(1..20));
        let strace = Strace::inject(&serve, &setup.directory, "pwrite64,fdatasync", &fault).await;
        serve.ends().await;
        let log = strace.log().await;
        assert!(log.contains("killed by SIGKILL"), "{log}");
        let Some((segment, offset, length)) = last_write(&log) else {
            // It was about to sync a file for later.
            serve = launch.start(&setup.next_log()).await;
            continue;
        };
        // Some of it had reached the disk.
        let reached = setup.random.u64(length / 8..length * 3 / 4);
        let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
        let lost = vec![0; usize::try_from(length - reached).unwrap()];
        file.write_all_at(&lost, offset + reached).unwrap();
        torn += 1;
        serve = launch.start(&setup.next_log()).await;
        bytes += found_torn(&serve.log());
    }
    load.goes_on(500).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("writes torn", torn), ("torn bytes that the service found", bytes)] }
}

/// File, offset and length of what was written to a segment and not synced when the process died.
fn last_write(log: &str) -> Option<(PathBuf, u64, u64)> {
    let syncs = died_in(log, "fdatasync").into_iter().filter_map(|line| file_of(&line));
    let file = syncs.into_iter().find(|file| file.extension().is_some_and(|extension| extension == "seg"))?;
    let is_write = |line: &&str| line.contains(" pwrite64(") && file_of(line).as_ref() == Some(&file);
    let write = log.lines().rev().find(is_write)?;
    // The last two arguments, in a line that may not have the result.
    let arguments = write.split_once(") = ").or_else(|| write.split_once(" <unfinished"))?.0;
    let mut arguments = arguments.rsplit(", ");
    let (offset, length) = (arguments.next()?.parse().ok()?, arguments.next()?.parse().ok()?);
    Some((file, offset, length))
}

fn found_torn(log: &str) -> u64 {
    let fields = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    fields.filter_map(|fields| fields["torn_bytes"].as_u64()).sum()
}

/// A file system of a drill's own in memory. `scripts/drills` runs in a mount namespace, so nothing of it can be left behind.
struct Disk(PathBuf);

impl Disk {
    fn mount(setup: &DrillSetup, size: &str) -> Self {
        let at = setup.directory.join("disk");
        std::fs::create_dir_all(&at).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &at);
        Self(at)
    }

    fn remount(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &self.0);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], at: &Path) {
    let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
    assert!(status.success(), "mount {arguments:?}");
}
