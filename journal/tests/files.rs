//! The journal on a real file system: killed while writing, on a full and on a read-only file system, read beside its writer, and
//! seen through strace. More kills: `ODOGRAPH_JOURNAL_KILLS=1000 cargo test --release --test journal_files`
//!
//! What a machine does not allow is skipped, and says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use odograph_journal::Position;
use odograph_journal::{
    AppendError, Archive, EntryKind, Files, Filter, FullCause, Journal, JournalState, Limits, NewEntry, OpenError,
    OpeningReport, Options, Reader, RecoveryMode, Storage as _,
};
use teltonika_codecs::Imei;

fn options(max_bytes: u64) -> Options {
    let limits = Limits::with_pieces(max_bytes, 256 << 10, 64 << 10, Duration::from_hours(1)).unwrap();
    Options { limits, recovery: RecoveryMode::Strict }
}

fn open(directory: &Path, max_bytes: u64) -> Result<(Journal, OpeningReport), OpenError> {
    let files =
        Files::new(directory).map_err(|source| OpenError::Io { doing: "making", name: String::new(), source })?;
    Journal::open(Arc::new(files), options(max_bytes), Box::new(|_| {}))
}

fn bytes(number: u64) -> String {
    format!("entry-{number:08}-{}", "x".repeat(usize::try_from(number * 37 % 300).unwrap()))
}

fn new_entry(number: u64, bytes: &str) -> NewEntry<'_> {
    let imei = Imei::try_from(number % 7).unwrap();
    let received_at_us = i64::try_from(number).unwrap();
    NewEntry { kind: EntryKind::Frame, imei, received_at_us, records: 1, bytes: bytes.as_bytes() }
}

/// Reads everything, and wants the entries 0, 1, 2 and so on, whole; gives how many.
fn count(journal: &Journal) -> u64 {
    let mut reader = Reader::open(journal.catalog(), Position(0)).unwrap();
    let mut next = 0;
    while let Some(entry) = reader.next().unwrap() {
        assert_eq!(entry.entry, new_entry(next, &bytes(next)));
        next += 1;
    }
    next
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Not a test by itself: the process that is killed. It goes on where the journal ends, and prints each number once it has the
/// receipt for it, with a window of unanswered entries as sessions have.
#[test]
fn writing_child() {
    let (Ok(directory), Ok(window)) = (std::env::var("JOURNAL_CHILD"), std::env::var("JOURNAL_CHILD_WINDOW")) else {
        return;
    };
    let window: usize = window.parse().unwrap();
    let most: u64 = std::env::var("JOURNAL_CHILD_ENTRIES").map_or(u64::MAX, |text| text.parse().unwrap());
    let (journal, _) = open(Path::new(&directory), 64 << 20).unwrap();
    let first = count(&journal);
    let mut out = std::io::stdout();
    runtime().block_on(async {
        let appender = journal.appender();
        let mut unanswered = std::collections::VecDeque::new();
        for number in (first..).take(usize::try_from(most).unwrap()) {
            let text = bytes(number);
            unanswered.push_back((number, appender.append(new_entry(number, &text)).await.unwrap()));
            if unanswered.len() >= window {
                let (number, ticket) = unanswered.pop_front().unwrap();
                ticket.await.unwrap();
                out.write_all(format!("acked {number:08}\n").as_bytes()).unwrap();
            }
        }
    });
}

fn child(directory: &Path, window: usize, entries: Option<u64>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writing_child", "--nocapture", "--test-threads=1"]);
    command.env("JOURNAL_CHILD", directory).env("JOURNAL_CHILD_WINDOW", window.to_string());
    command.envs(entries.map(|entries| ("JOURNAL_CHILD_ENTRIES", entries.to_string())));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn acked(line: &str) -> Option<u64> {
    line.split_once("acked ").and_then(|(_, rest)| rest.get(..8)?.parse().ok())
}

#[test]
fn a_killed_writer_has_every_entry_that_it_gave_a_receipt_for() {
    let kills: u64 = std::env::var("ODOGRAPH_JOURNAL_KILLS").map_or(15, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let (mut promised, mut torn, mut held) = (0, 0, 0);
    for _ in 0..kills {
        let window = if rng.bool() { 1 } else { 50 };
        let mut running = child(directory.path(), window, None).spawn().unwrap();
        let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
        // Some time after the first receipt of this life.
        let first = lines.by_ref().map_while(Result::ok).find_map(|line| acked(&line)).expect("the child writes");
        promised = promised.max(first + 1);
        std::thread::sleep(Duration::from_micros(rng.u64(0..30_000)));
        running.kill().unwrap();
        running.wait().unwrap();
        promised = lines.map_while(Result::ok).filter_map(|line| acked(&line)).last().map_or(promised, |last| last + 1);

        let (journal, opened) = open(directory.path(), 64 << 20).unwrap();
        held = count(&journal);
        assert!(held >= promised, "{promised} entries have receipts, {held} are there");
        torn += u64::from(opened.torn_bytes > 0);
        let end = journal.catalog().history().end().position;
        if end.0 > 30 << 20 {
            break;
        }
    }
    println!("{kills} kills: {promised} receipts, {held} entries, {torn} torn tails");
}

#[test]
fn strace_shows_each_receipt_after_its_sync() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("SKIPPED: strace is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let plain = child(&directory.path().join("journal"), 1, Some(30));
    let mut command = Command::new("strace");
    command
        .args(["-f", "-s", "200", "-e", "trace=pwrite64,fdatasync,write", "-o"])
        .arg(&trace)
        .arg(plain.get_program());
    command.args(plain.get_args()).envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.stdin(Stdio::null()).output().unwrap();
    if !output.status.success() {
        println!("SKIPPED: strace may not trace here: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let trace = std::fs::read_to_string(trace).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let find = |from: usize, wanted: &dyn Fn(&str) -> bool| {
        lines.iter().skip(from).position(|line| wanted(line)).map(|at| from + at)
    };
    for number in 0..30 {
        let name = format!("entry-{number:08}");
        let written = find(0, &|line| line.contains("pwrite64") && line.contains(&name)).expect("it is written");
        let thread = lines[written].split_whitespace().next().unwrap();
        let synced = find(written, &|line| {
            line.starts_with(thread) && line.contains("fdatasync") && line.trim_end().ends_with("= 0")
        });
        let told = find(0, &|line| line.contains("write(1") && line.contains(&format!("acked {number:08}"))).unwrap();
        assert!(synced.expect("it is synced") < told, "entry {number}");
    }
}

/// A file system of its own, unmounted at the end; `None` where that is not allowed.
struct Mount {
    at: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mount {
    fn tmpfs(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("mount");
        std::fs::create_dir(&at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { at, _directory: directory }),
            other => {
                println!("SKIPPED: cannot mount a tmpfs here: {other:?}");
                None
            }
        }
    }

    fn remount(&self, how: &str) -> bool {
        let remounted = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.at).output();
        remounted.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

#[test]
fn a_file_system_without_space_is_waited_for() {
    let Some(mount) = Mount::tmpfs("1200k") else { return };
    let (journal, _) = open(&mount.at.join("journal"), 64 << 20).unwrap();
    let catalog = Arc::clone(journal.catalog());
    let appender = journal.appender();
    let runtime = runtime();
    let written = runtime.block_on(async {
        for number in 0.. {
            let text = bytes(number);
            let done = async { appender.append(new_entry(number, &text)).await.unwrap().await.unwrap() };
            if tokio::time::timeout(Duration::from_secs(5), done).await.is_err() {
                return number;
            }
            if catalog.status().state == JournalState::Full(FullCause::NoSpace) {
                return number + 1;
            }
        }
        unreachable!()
    });
    assert!(written > 100);
    assert_eq!(catalog.status().state, JournalState::Full(FullCause::NoSpace));
    assert!(!mount.at.join("journal/spare.tmp").exists(), "half a segment is not left behind");
    // What is there can be drained meanwhile.
    let read = count(&journal);
    assert!(read >= written, "{read} of {written}");
    assert!(mount.remount("size=8m"));
    runtime.block_on(async {
        let late = async { appender.append(new_entry(9, "late")).await.unwrap().await.unwrap() };
        tokio::time::timeout(Duration::from_secs(20), late).await.expect("space helps");
    });
    assert_eq!(catalog.status().state, JournalState::Open);
    journal.close().unwrap();
}

#[test]
fn a_read_only_file_system_is_an_error_and_can_be_looked_into() {
    let Some(mount) = Mount::tmpfs("8m") else { return };
    let directory = mount.at.join("journal");
    let (journal, _) = open(&directory, 4 << 20).unwrap();
    let text = bytes(0);
    let ticket = journal.appender().try_append(&new_entry(0, &text)).unwrap();
    assert!(!mount.remount("ro"), "a file that is open for writing keeps it writable");
    runtime().block_on(ticket).unwrap();
    journal.close().unwrap();
    if !mount.remount("ro") {
        println!("SKIPPED: cannot remount read-only here");
        return;
    }
    let error = open(&directory, 4 << 20).err().unwrap();
    assert!(
        matches!(&error, OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem),
        "{error:?}"
    );
    let archive = Archive::open(Arc::new(Files::read_only(&directory).unwrap())).unwrap();
    let mut entries = archive.entries(Filter::default()).unwrap();
    assert_eq!(entries.next().unwrap().unwrap().entry, new_entry(0, &text));
}

#[test]
fn readers_beside_a_writer_see_every_entry_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path(), 2 << 20).unwrap();
    let total = 30_000;
    let catalog = Arc::clone(journal.catalog());
    let drain = std::thread::spawn(move || {
        let mut reader = Reader::open(&catalog, Position(0)).unwrap();
        let mut next = 0;
        while next < total {
            assert!(reader.wait(Duration::from_secs(20)), "{:?}", catalog.status());
            while let Some(entry) = reader.next().unwrap() {
                assert_eq!(entry.entry, new_entry(next, &bytes(next)));
                next += 1;
            }
            assert!(reader.cursor().position <= catalog.status().end);
            catalog.release(reader.cursor().position).unwrap();
        }
    });
    // Another process' view: whatever it sees is whole, and goes up.
    let path = directory.path().to_owned();
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let onlooker = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut looks = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let archive = Archive::open(Arc::new(Files::read_only(&path).unwrap())).unwrap();
                let filter = Filter { imei: Some(Imei::try_from(3).unwrap()), from_us: Some(10), to_us: None };
                let mut entries = archive.entries(filter).unwrap();
                let mut last = None;
                while let Some(entry) = entries.next().unwrap() {
                    let number = u64::try_from(entry.entry.received_at_us).unwrap();
                    assert_eq!(entry.entry, new_entry(number, &bytes(number)));
                    assert!(number % 7 == 3 && number >= 10 && last.is_none_or(|last| number > last));
                    last = Some(number);
                }
                assert_eq!(entries.damages(), 0);
                looks += 1;
            }
            looks
        }
    });
    runtime().block_on(async {
        let appender = journal.appender();
        let mut tickets = Vec::new();
        for number in 0..total {
            let text = bytes(number);
            tickets.push(appender.append(new_entry(number, &text)).await.unwrap());
        }
        for ticket in tickets {
            ticket.await.unwrap();
        }
    });
    drain.join().unwrap();
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    println!("{} looks from outside", onlooker.join().unwrap());
    journal.close().unwrap();
}

#[test]
fn a_directory_is_locked_between_processes() {
    let directory = tempfile::tempdir().unwrap();
    let mut running: Child = child(directory.path(), 1, None).spawn().unwrap();
    let mut out = running.stdout.take().unwrap();
    let mut seen = String::new();
    while acked(&seen).is_none() {
        let mut piece = [0; 256];
        let read = out.read(&mut piece).unwrap();
        assert!(read > 0);
        seen.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    assert!(matches!(open(directory.path(), 64 << 20), Err(OpenError::Locked)));
    // As `find -type f -empty -delete` does.
    std::fs::remove_file(directory.path().join("lock")).unwrap();
    assert!(matches!(open(directory.path(), 64 << 20), Err(OpenError::Locked)), "the lock is not that file alone");
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(open(directory.path(), 64 << 20).is_ok(), "a lock ends with its process");
}

#[test]
fn a_directory_that_was_replaced_under_a_writer_is_noticed() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("journal");
    let (journal, _) = open(&directory, 64 << 20).unwrap();
    let appender = journal.appender();
    let text = bytes(1);
    runtime().block_on(async { appender.append(new_entry(1, &text)).await.unwrap().await.unwrap() });
    std::fs::rename(&directory, parent.path().join("moved")).unwrap();
    let (other, _) = open(&directory, 64 << 20).unwrap();
    // The next new segment has to sync the names of its directory, and finds another one.
    let ended = runtime().block_on(async {
        loop {
            let ticket = match appender.append(new_entry(2, &text)).await {
                Ok(ticket) => ticket,
                Err(error) => break error,
            };
            if let Err(error) = ticket.await {
                break error;
            }
        }
    });
    assert!(matches!(ended, AppendError::Poisoned(_)), "{ended:?}");
    assert!(journal.close().is_err());
    // The writer of before cannot take away what the other one needs, such as its spare segment.
    other.close().unwrap();
}

#[test]
fn a_writer_changes_nothing_in_the_directory_that_replaced_its_own() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("journal");
    let earlier = Files::new(&directory).unwrap();
    earlier.create("one").unwrap().write_at(0, b"earlier").unwrap();
    std::fs::rename(&directory, parent.path().join("moved")).unwrap();
    let later = Files::new(&directory).unwrap();
    for name in ["one", "two", "three"] {
        later.create(name).unwrap().write_at(0, b"later").unwrap();
    }
    assert_eq!(earlier.names().unwrap(), ["one"]);
    earlier.rename("one", "two").unwrap();
    earlier.rename_new("two", "three").unwrap();
    earlier.remove("three").unwrap();
    earlier.create("two").unwrap().write_at(0, b"earlier").unwrap();
    assert!(earlier.lock().is_ok() && later.lock().is_ok(), "two directories, two locks");
    assert!(earlier.sync_names().is_err());
    for name in ["one", "two", "three"] {
        assert_eq!(std::fs::read(directory.join(name)).unwrap(), b"later");
    }
}

#[test]
fn a_segment_never_replaces_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::new(directory.path()).unwrap();
    for name in ["one", "two"] {
        files.create(name).unwrap().write_at(0, name.as_bytes()).unwrap();
    }
    assert_eq!(files.rename_new("one", "two").unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(directory.path().join("two")).unwrap(), b"two");
    files.rename_new("one", "three").unwrap();
    assert_eq!(std::fs::read(directory.path().join("three")).unwrap(), b"one");
}
