//! Full, free again, kept and given up; poisoned, and what every later call returns. Step by step, without threads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use odograph_faulty_disk::{Faults, FaultyDisk};
use odograph_journal::{
    FullCause, HistoryMatch, HistoryMismatch, InvalidLimits, JournalState, Limits, Log, LogOutcome, Options, ReadError,
    Reader, RecoveryMode,
};
use odograph_journal::{JournalId, Position};
use support::{commit, draw, limits, must_commit, numbers, open, options};

/// Commits one entry a group until there is no room; gives the number of the entry that was not taken.
fn fill(log: &mut Log, first: u64) -> u64 {
    let mut number = first;
    while let LogOutcome::Synced(_) = commit(log, [number]).unwrap() {
        number += 1;
    }
    number
}

fn state(log: &Log) -> JournalState {
    log.catalog().status().state
}

#[test]
fn a_full_journal_goes_on_below_nine_tenths() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    let refused = fill(&mut log, 0);
    let status = log.catalog().status();
    assert_eq!(status.state, JournalState::Full(FullCause::Limit));
    assert!(status.uncommitted_bytes > status.max_bytes / 10 * 9 && status.uncommitted_bytes <= status.max_bytes);
    assert_eq!(status.keep_shortened, 0, "nothing that is not committed is given up");

    // A segment's worth is released, then another: room comes when a tenth is free.
    let mut reader = Reader::open(log.catalog(), Position(0)).unwrap();
    let mut released = 0;
    while !matches!(commit(&mut log, [refused]).unwrap(), LogOutcome::Synced(_)) {
        assert!(state(&log) != JournalState::Open);
        reader.next().unwrap().unwrap();
        log.catalog().release(reader.cursor().position).unwrap();
        released += 1;
    }
    let status = log.catalog().status();
    assert_eq!(status.state, JournalState::Open);
    assert!(status.uncommitted_bytes <= status.max_bytes, "{status:?}");
    assert!(released > 0 && status.keep_shortened > 0, "committed segments are given up when room is needed");
    let left = numbers(log.catalog());
    assert_eq!(left.last(), Some(&refused));
    assert!(left.is_sorted() && left.len() as u64 <= refused);
}

#[test]
fn a_full_journal_opens_full_and_drains() {
    let disk = FaultyDisk::new(2);
    let (mut log, _) = open(&disk, 1).unwrap();
    let refused = fill(&mut log, 0);
    drop(log);
    let (mut log, opened) = open(&disk, 2).unwrap();
    assert_eq!((state(&log), opened.entries), (JournalState::Full(FullCause::Limit), refused));
    assert_eq!(numbers(log.catalog()), (0..refused).collect::<Vec<_>>());
    log.catalog().release(log.catalog().history().end().position).unwrap();
    must_commit_soon(&mut log, refused);
}

#[track_caller]
fn must_commit_soon(log: &mut Log, number: u64) {
    let mut tries = 0..3;
    while !matches!(commit(log, [number]).unwrap(), LogOutcome::Synced(_)) {
        tries.next().expect("room");
    }
}

#[test]
fn a_full_file_system_is_no_failure_and_passes() {
    let disk = FaultyDisk::new(3);
    disk.set_faults(Faults { capacity: Some(30_000), ..Faults::default() });
    let (mut log, _) = open(&disk, 1).unwrap();
    let refused = fill(&mut log, 0);
    assert_eq!(state(&log), JournalState::Full(FullCause::NoSpace));

    // Releasing helps: the same files are used again, nothing new is needed.
    log.catalog().release(log.catalog().history().end().position).unwrap();
    must_commit_soon(&mut log, refused);
    assert_eq!(state(&log), JournalState::Open);

    // Space helps, after a pause.
    let refused = fill(&mut log, refused + 1);
    disk.set_faults(Faults::default());
    assert!(!log.catalog().run_task(999_999), "not before the pause is over");
    assert!(log.catalog().run_task(2_000_000));
    must_commit(&mut log, [refused]);
}

#[test]
fn a_journal_opens_on_a_full_file_system() {
    let disk = FaultyDisk::new(4);
    let (mut log, _) = open(&disk, 1).unwrap();
    must_commit(&mut log, [1, 2]);
    drop(log);
    disk.set_faults(Faults { capacity: Some(1), ..Faults::default() });
    for tag in 2..9 {
        drop(open(&disk, tag).unwrap());
    }
    let (log, _) = open(&disk, 9).unwrap();
    assert_eq!(numbers(log.catalog()), [1, 2]);
    let end = log.catalog().history().end();
    log.catalog().release(end.position).unwrap();
    while log.catalog().run_task(9_000_000) {}
    drop(log);
    disk.set_faults(Faults::default());
    let (log, _) = open(&disk, 10).unwrap();
    assert_eq!(log.catalog().history().end().position, end.position, "positions never start again");
}

#[test]
fn starting_again_and_again_uses_nothing_up() {
    let disk = FaultyDisk::new(11);
    let (mut log, _) = open(&disk, 1).unwrap();
    must_commit(&mut log, [1, 2]);
    for tag in 2..100 {
        drop(log);
        log = open(&disk, tag).unwrap().0;
        assert_eq!(state(&log), JournalState::Open);
        if tag % 10 == 0 {
            disk.power_cycle();
            log = open(&disk, tag + 1000).unwrap().0;
        }
    }
    assert!(support::segments(&disk).len() <= 4);
    must_commit(&mut log, [3]);
    assert_eq!(numbers(log.catalog()), [1, 2, 3]);
}

#[test]
fn committed_segments_are_kept_for_their_time_and_then_used_again() {
    let disk = FaultyDisk::new(5);
    let keep = Duration::from_secs(10);
    let limits = Limits::with_pieces(80 << 10, 8 << 10, 3 << 10, keep).unwrap();
    let options = Options { limits, recovery: RecoveryMode::Strict };
    let (mut log, _) = Log::open(Arc::new(disk.clone()), options, draw(1), 0).unwrap();
    let mut at_us = 0;
    for _ in 0..30 {
        at_us += 1_000_000;
        let mut group = odograph_journal::Group::default();
        let imei = teltonika_codecs::Imei::try_from(1).unwrap();
        let kind = odograph_journal::EntryKind::Frame;
        let bytes = [7; 2000];
        group.push(&odograph_journal::NewEntry { kind, imei, received_at_us: at_us, records: 1, bytes: &bytes });
        assert!(matches!(log.commit(&mut group), Ok(LogOutcome::Synced(_))));
        log.catalog().release(log.catalog().history().end().position).unwrap();
        while log.catalog().run_task(at_us) {}
        let mut reader = Reader::open(log.catalog(), log.catalog().history().begin().position).unwrap();
        let oldest = reader.next().unwrap().unwrap().entry.received_at_us;
        assert!(at_us - oldest < 14_000_000, "a segment holds four, so the oldest is not much older than ten seconds");
        assert!(at_us < 10_000_000 || at_us - oldest >= 9_000_000, "and not younger");
    }
    assert_eq!(log.catalog().status().keep_shortened, 0);
    assert!(matches!(Reader::open(log.catalog(), Position(0)), Err(ReadError::NotKept { .. })));
}

#[test]
fn kept_segments_outlive_restarts_that_bring_no_entries() {
    let disk = FaultyDisk::new(5);
    let limits = Limits::with_pieces(80 << 10, 8 << 10, 3 << 10, Duration::from_hours(1)).unwrap();
    let options = Options { limits, recovery: RecoveryMode::Strict };
    let opened = |tag, now_us| Log::open(Arc::new(disk.clone()), options, draw(tag), now_us).unwrap().0;
    let (mut log, mut at_us) = (opened(1, 0), 0);
    for _ in 0..20 {
        at_us += 1_000_000;
        let mut group = odograph_journal::Group::default();
        let imei = teltonika_codecs::Imei::try_from(1).unwrap();
        let kind = odograph_journal::EntryKind::Frame;
        let bytes = [7; 2000];
        group.push(&odograph_journal::NewEntry { kind, imei, received_at_us: at_us, records: 1, bytes: &bytes });
        assert!(matches!(log.commit(&mut group), Ok(LogOutcome::Synced(_))));
        while log.catalog().run_task(at_us) {}
    }
    log.catalog().release(log.catalog().history().end().position).unwrap();
    assert!(matches!(log.commit(&mut odograph_journal::Group::default()), Ok(LogOutcome::Synced(_))));
    // The last one after the time for which entries are kept: nobody knows how old they are, so they stay.
    for (tag, minutes) in [(2, 1), (3, 2), (4, 3), (5, 90)] {
        drop(log);
        let now_us = at_us + minutes * 60_000_000;
        log = opened(tag, now_us);
        while log.catalog().run_task(now_us) {}
        let mut reader = Reader::open(log.catalog(), Position(0)).unwrap();
        let mut entries = 0;
        while reader.next().unwrap().is_some() {
            entries += 1;
        }
        assert_eq!(entries, 20, "after {minutes} minutes");
    }
}

#[test]
fn a_reader_whose_segment_was_given_away_says_so() {
    let disk = FaultyDisk::new(6);
    let (mut log, _) = open(&disk, 1).unwrap();
    let mut reader = Reader::open(log.catalog(), Position(0)).unwrap();
    let refused = fill(&mut log, 0);
    reader.next().unwrap().unwrap();
    log.catalog().release(log.catalog().history().end().position).unwrap();
    for number in refused..refused * 3 {
        let _ = commit(&mut log, [number]).unwrap();
        log.catalog().release(log.catalog().history().end().position).unwrap();
    }
    let error = std::iter::from_fn(|| reader.next().map(|entry| entry.map(|_| ())).transpose()).find_map(Result::err);
    assert!(matches!(error, Some(ReadError::NotKept { .. })), "{error:?}");
}

#[test]
fn what_was_released_is_remembered_and_can_be_taken_back() {
    let disk = FaultyDisk::new(7);
    let (mut log, _) = open(&disk, 1).unwrap();
    must_commit(&mut log, [1, 2]);
    let mut reader = Reader::open(log.catalog(), Position(0)).unwrap();
    reader.next().unwrap();
    let first = reader.cursor().position;
    log.catalog().release(log.catalog().history().end().position).unwrap();
    must_commit(&mut log, [3]);
    drop(log);
    let (mut log, opened) = open(&disk, 2).unwrap();
    assert_eq!(opened.entries, 1, "the last one is not released");
    log.catalog().rewind(first).unwrap();
    must_commit(&mut log, []);
    drop(log);
    let (log, opened) = open(&disk, 3).unwrap();
    assert_eq!((opened.entries, log.catalog().status().released), (2, first));
}

#[test]
fn a_new_id_is_durable_and_holds_everything() {
    let disk = FaultyDisk::new(8);
    let (mut log, _) = open(&disk, 1).unwrap();
    must_commit(&mut log, [1, 2]);
    let catalog = Arc::clone(log.catalog());
    let end = catalog.history().end();
    catalog.release(end.position).unwrap();

    let ahead = odograph_journal::Mark { position: Position(end.position.0 + 5), tag: end.tag };
    let found = catalog.history().compare(ahead, |position| Reader::tag_at(&catalog, position)).unwrap();
    assert_eq!(found, HistoryMatch::Reidentify(HistoryMismatch::EndsBefore { bytes: 5 }));
    let new = JournalId::random();
    catalog.reidentify(new).unwrap();
    disk.power_cycle();
    let (log, _) = open(&disk, 2).unwrap();
    assert_eq!(log.catalog().id(), new);
    assert_eq!(numbers(log.catalog()), [1, 2], "content stays, and positions with it");
}

#[test]
fn after_a_failed_sync_every_call_says_so() {
    for (faults, doing) in [
        (Faults { fail_sync_after: Some(0), ..Faults::default() }, "syncing a group"),
        (Faults { fail_write_after: Some(0), ..Faults::default() }, "writing a group"),
    ] {
        let disk = FaultyDisk::new(9);
        let (mut log, _) = open(&disk, 1).unwrap();
        must_commit(&mut log, [1]);
        disk.set_faults(faults);
        let operations = disk.operations();
        assert_eq!(commit(&mut log, [2]).unwrap_err().doing, doing);
        let catalog = log.catalog();
        assert_eq!(state(&log), JournalState::Poisoned);
        let after = disk.operations();
        assert!(after.writes <= operations.writes + 1 && after.syncs == operations.syncs);

        let mut reader = Reader::open(catalog, Position(0)).unwrap();
        assert!(reader.next().unwrap().is_some(), "what was synced can be read");
        assert!(matches!(reader.next(), Err(ReadError::Poisoned(_))), "and then it says so");
        assert!(reader.wait(Duration::ZERO));
        assert_eq!(catalog.release(Position(0)).unwrap_err().doing, doing);
        assert_eq!(catalog.rewind(Position(0)).unwrap_err().doing, doing);
        assert_eq!(catalog.reidentify(JournalId::random()).unwrap_err().doing, doing);
        assert!(!catalog.run_task(0));
        assert_eq!(commit(&mut log, [3]).unwrap_err().doing, doing);
        assert_eq!(disk.operations(), after, "nothing is tried again");
    }
}

#[test]
fn a_segment_task_that_fails_poisons_too() {
    let disk = FaultyDisk::new(10);
    let (mut log, _) = open(&disk, 1).unwrap();
    disk.set_faults(Faults { fail_sync_after: Some(0), ..Faults::default() });
    assert!(log.catalog().run_task(0));
    assert_eq!(log.commit(&mut odograph_journal::Group::default()).unwrap_err().doing, "making a segment");
}

#[test]
fn limits_that_cannot_work_are_refused() {
    let keep = Duration::ZERO;
    assert!(matches!(Limits::new(100 << 10, keep), Err(InvalidLimits::TooSmall { .. })));
    assert!(matches!(Limits::with_pieces(1 << 20, 8 << 10, 8 << 10, keep), Err(InvalidLimits::GroupTooLarge { .. })));
    for max in [512 << 10, 1 << 20, 4 << 30, 1 << 45] {
        let limits = Limits::new(max, keep).unwrap();
        assert!(limits.segment_bytes() * 3 <= max && u64::from(limits.group_bytes()) < limits.segment_bytes());
        assert!(limits.group_bytes() >= 70 << 10, "the largest message fits");
    }
    let _ = (limits(), options());
}
