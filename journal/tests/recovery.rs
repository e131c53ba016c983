//! What opening makes of a journal that something happened to: torn tails, damage, and files that are not its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use odograph_faulty_disk::{Faults, FaultyDisk};
use odograph_journal::{
    EntryKind, Group, HistoryMatch, HistoryMismatch, Journal, Log, LogOutcome, NewEntry, OpenError, Position,
    ReadError, Reader, Storage as _,
};
use support::{commit, draw, last_segment, must_commit, numbers, open, open_skipping_damage, options};

/// A journal of three groups in one segment: entries 1, 2; 3; 4, 5.
fn three_groups(seed: u64) -> FaultyDisk {
    let disk = FaultyDisk::new(seed);
    let (mut log, _) = open(&disk, 1).unwrap();
    for group in [vec![1, 2], vec![3], vec![4, 5]] {
        must_commit(&mut log, group);
    }
    disk
}

/// Where each group begins in a segment's file, by its magic number at a sector.
fn groups(disk: &FaultyDisk, name: &str) -> Vec<usize> {
    let content = disk.content(name).unwrap();
    (512..content.len()).step_by(512).filter(|at| content[*at..].starts_with(b"ODG2")).collect()
}

#[test]
fn a_group_whose_sectors_came_out_of_order_is_there_whole_or_not_at_all() {
    let (mut whole, mut torn) = (0, 0);
    for seed in 0..400 {
        let disk = FaultyDisk::new(seed);
        let (mut log, _) = open(&disk, 1).unwrap();
        must_commit(&mut log, [1]);
        // After the write, before the sync; or in the middle of the write.
        disk.set_faults(Faults { power_off_after: Some(seed % 2), ..Faults::default() });
        assert!(log.commit(&mut group_of(&[2, 3, 4, 5, 6])).is_err());
        disk.power_cycle();
        let (log, opened) = open(&disk, 2).unwrap();
        match numbers(log.catalog()).as_slice() {
            [1] => torn += u64::from(opened.torn_bytes > 0),
            [1, 2, 3, 4, 5, 6] => whole += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(whole > 0 && torn > 50, "{whole} whole, {torn} torn");
}

fn group_of(numbers: &[u64]) -> Group {
    let mut group = Group::default();
    for number in numbers {
        support::push(&mut group, *number);
    }
    group
}

#[test]
fn a_flipped_bit_in_a_synced_group_of_the_last_segment_is_damage() {
    let disk = three_groups(1);
    let name = last_segment(&disk);
    // The first group is the empty one of the opening.
    let begin = groups(&disk, &name)[2] as u64;
    for bit in (begin * 8..(begin + 100) * 8).step_by(7) {
        let image = disk.image(bit);
        assert!(image.flip(&name, bit));
        let before = image.content(&name);
        let Err(OpenError::Damaged { name: said, offset, .. }) = open(&image, 2) else {
            panic!("bit {bit} went unseen")
        };
        assert_eq!((said, offset), (name.clone(), begin));
        assert_eq!(image.content(&name), before, "nothing was changed");

        let (log, opened) = open_skipping_damage(&image, 2).unwrap();
        assert_eq!(numbers(log.catalog()), [1, 2, 4, 5]);
        assert_eq!(opened.damages, 1);
        assert!(opened.damage_skipped_bytes > 0);
        assert_eq!(log.catalog().status().damage_skipped_bytes, opened.damage_skipped_bytes * 2, "opened, then read");
    }
}

#[test]
fn a_flipped_bit_in_the_very_last_group_is_a_torn_tail_until_something_follows_it() {
    let disk = three_groups(2);
    let name = last_segment(&disk);
    let begin = *groups(&disk, &name).last().unwrap() as u64;

    let image = disk.image(1);
    assert!(image.flip(&name, (begin + 90) * 8));
    let (log, opened) = open(&image, 2).unwrap();
    assert_eq!(numbers(log.catalog()), [1, 2, 3]);
    assert!(opened.torn_bytes > 0);

    // OpeningReport once more, the next segment says where this one ended.
    drop(open(&disk, 2).unwrap());
    assert!(disk.flip(&name, (begin + 90) * 8));
    assert!(matches!(open(&disk, 3), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_journal_that_was_closed_knows_its_end() {
    let disk = FaultyDisk::new(3);
    let (journal, _) = Journal::open(Arc::new(disk.clone()), options(), Box::new(|_| {})).unwrap();
    let (kind, imei, received_at_us, records, bytes) = support::content(1);
    let entry = NewEntry { kind, imei, received_at_us, records, bytes: &bytes };
    let ticket = journal.appender().try_append(&entry).unwrap();
    journal.close().unwrap();
    drop(ticket);
    let name = last_segment(&disk);
    let begin = groups(&disk, &name)[1] as u64;
    assert!(disk.flip(&name, (begin + 90) * 8));
    assert!(matches!(open(&disk, 2), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_crash_while_recovering_twice_over_changes_nothing() {
    for seed in 0..60 {
        let disk = three_groups(seed);
        let mut log = open(&disk, 2).unwrap().0;
        disk.set_faults(Faults { power_off_after: Some(seed % 2), ..Faults::default() });
        assert!(log.commit(&mut group_of(&[6, 7, 8])).is_err());
        disk.power_cycle();
        let wanted = numbers(open(&disk.image(seed), 3).unwrap().0.catalog());
        assert!(wanted == [1, 2, 3, 4, 5] || wanted == [1, 2, 3, 4, 5, 6, 7, 8]);
        for cut in 0..25 {
            let disk = disk.image(seed + cut);
            for again in [0, 3] {
                disk.set_faults(Faults { power_off_after: Some(cut.saturating_sub(again)), ..Faults::default() });
                let _ = open(&disk, 3);
                disk.power_cycle();
            }
            assert_eq!(numbers(open(&disk, 4).unwrap().0.catalog()), wanted, "seed {seed}, cut {cut}");
        }
    }
}

#[test]
fn a_group_that_a_failed_sync_left_in_memory_alone_is_made_durable_or_dropped() {
    let (mut kept, mut dropped) = (0, 0);
    for seed in 0..200 {
        let disk = FaultyDisk::new(seed);
        let (mut log, _) = open(&disk, 1).unwrap();
        must_commit(&mut log, [1]);
        disk.set_faults(Faults { fail_sync_after: Some(0), ..Faults::default() });
        assert!(commit(&mut log, [2]).is_err());
        disk.kill();
        let (log, _) = open(&disk, 2).unwrap();
        let seen = numbers(log.catalog());
        disk.power_cycle();
        let (log, _) = open(&disk, 3).unwrap();
        assert_eq!(numbers(log.catalog()), seen, "what was given to read is durable");
        if seen.len() == 2 { kept += 1 } else { dropped += 1 }
    }
    assert!(kept > 0 && dropped > 0, "{kept} kept, {dropped} dropped");
}

#[test]
fn damage_met_while_reading_stops_or_is_skipped_as_the_operator_said() {
    let disk = three_groups(4);
    let name = last_segment(&disk);
    let begin = groups(&disk, &name)[2] as u64;

    let image = disk.image(2);
    let (log, _) = open(&image, 2).unwrap();
    assert!(image.flip(&name, (begin + 90) * 8));
    let mut reader = Reader::open(log.catalog(), Position(0)).unwrap();
    assert!(reader.next().unwrap().is_some() && reader.next().unwrap().is_some());
    let cursor = reader.cursor();
    assert!(matches!(reader.next(), Err(ReadError::Damaged { offset, .. }) if offset == begin));
    assert_eq!(reader.cursor(), cursor, "an error moves nothing");

    let (log, _) = open_skipping_damage(&disk, 2).unwrap();
    assert!(disk.flip(&name, (begin + 90) * 8));
    assert_eq!(numbers(log.catalog()), [1, 2, 4, 5]);
    assert!(log.catalog().status().damage_skipped_bytes > 0);
}

#[test]
fn a_missing_segment_in_the_middle_is_damage() {
    let disk = FaultyDisk::new(5);
    let (mut log, _) = open(&disk, 1).unwrap();
    for number in 0..60 {
        must_commit(&mut log, [number]);
    }
    let names = support::segments(&disk);
    assert!(names.len() >= 4);
    disk.remove(&names[1]).unwrap();
    assert!(matches!(open(&disk, 2), Err(OpenError::Damaged { name, .. }) if name == names[0]));
    let (log, opened) = open_skipping_damage(&disk, 2).unwrap();
    let left = numbers(log.catalog());
    assert!(left.len() < 60 && left.contains(&0) && left.contains(&59));
    assert!(opened.damage_skipped_bytes > 0);
}

#[test]
fn files_that_are_not_the_journals_own_are_named() {
    let disk = three_groups(6);
    let name = last_segment(&disk);
    let whole = disk.content(&name).unwrap();
    let told = |disk: &FaultyDisk| open(disk, 2).map(|_| ()).unwrap_err();

    // Nothing of ours: left alone.
    let image = disk.image(1);
    image.put("notes.txt", b"hello".to_vec());
    image.put("1.seg", b"hello".to_vec());
    assert!(open(&image, 2).is_ok());
    assert_eq!(image.content("notes.txt").unwrap(), b"hello");

    // A segment's name, and something else in it.
    let foreign = "00000000000000000099.seg";
    image.put(foreign, b"#!/bin/sh\necho this is not a segment, whatever its name may say\n".to_vec());
    assert!(matches!(told(&image), OpenError::Foreign { name, .. } if name == foreign));

    // Another journal's segment, and one of ours under another name.
    let image = disk.image(2);
    let other = FaultyDisk::new(9);
    drop(Log::open(Arc::new(other.clone()), options(), draw(99), 0).unwrap());
    image.put(foreign, other.content(&last_segment(&other)).unwrap());
    assert!(matches!(told(&image), OpenError::Foreign { name, .. } if name == foreign));
    image.put(foreign, whole.clone());
    assert!(matches!(told(&image), OpenError::Foreign { name, .. } if name == foreign));

    // Cut short, and too long.
    for content in [whole[..5_000].to_vec(), [whole.clone(), vec![0; 512]].concat()] {
        let image = disk.image(3);
        image.put(&name, content);
        assert!(matches!(told(&image), OpenError::Damaged { name: said, .. } if said == name));
    }

    // A length that reaches beyond everything.
    let image = disk.image(4);
    let at = groups(&image, &name)[2];
    let mut content = whole.clone();
    content[at + 8..at + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    image.put(&name, content);
    assert!(matches!(told(&image), OpenError::Damaged { offset, .. } if offset == at as u64));
}

#[test]
fn a_later_format_is_not_touched() {
    let disk = three_groups(7);
    for name in ["identity".to_owned(), last_segment(&disk)] {
        let image = disk.image(1);
        let mut content = image.content(&name).unwrap();
        content[8] = 3;
        let sum = crc32fast::hash(&content[..48]);
        content[48..52].copy_from_slice(&sum.to_le_bytes());
        image.put(&name, content.clone());
        let error = open(&image, 2).unwrap_err();
        assert!(matches!(&error, OpenError::OtherVersion { name: said, version: 3 } if *said == name), "{error}");
        assert!(open_skipping_damage(&image, 2).is_err());
        assert_eq!(image.content(&name).unwrap(), content);
    }
}

#[test]
fn a_lost_identity_is_damage_and_skipping_it_draws_a_new_id() {
    let disk = three_groups(8);
    let (log, _) = open(&disk, 2).unwrap();
    let (id, end) = (log.catalog().id(), log.catalog().history().end().position);
    log.catalog().release(end).unwrap();
    drop(log);
    disk.remove("identity").unwrap();
    assert!(matches!(open(&disk, 3), Err(OpenError::Damaged { name, .. }) if name == "identity"));
    let (log, opened) = open_skipping_damage(&disk, 3).unwrap();
    assert!(opened.new_id && log.catalog().id() != id);
    assert_eq!((opened.entries, log.catalog().status().released), (5, Position(0)), "everything is drained again");
    assert_eq!(numbers(log.catalog()), [1, 2, 3, 4, 5]);
}

#[test]
fn positions_end_and_never_wrap() {
    let disk = FaultyDisk::new(10);
    let begin = Position(i64::MAX.unsigned_abs() - 300);
    let draw = odograph_journal::OpeningDraw { begin, ..draw(1) };
    let (mut log, _) = Log::open(Arc::new(disk.clone()), options(), draw, 0).unwrap();
    assert_eq!(log.catalog().history().end().position, begin);
    let mut written = 0;
    while let Ok(LogOutcome::Synced(proof)) = commit(&mut log, [written]) {
        assert!(i64::try_from(proof.end().position.0).is_ok());
        written += 1;
        assert!(written < 20, "it has to end");
    }
    assert!(commit(&mut log, [written]).is_err(), "and stays ended");
    let (log, _) = open(&disk, 2).unwrap();
    assert_eq!(numbers(log.catalog()).len() as u64, written);
}

/// A virtual machine that is put back to a snapshot goes on with the memory of then: the same opening, the same places, other
/// entries.
#[test]
fn a_snapshot_that_is_put_back_with_its_memory_is_another_history() {
    let disk = three_groups(12);
    let snapshot = disk.image(1);
    let append = |disk: &FaultyDisk, contents: &[&[u8]]| {
        let (mut log, _) = open(disk, 5).unwrap();
        let before = log.catalog().history().end();
        let mut marks = Vec::new();
        for content in contents {
            let mut group = Group::default();
            let imei = 7.try_into().unwrap();
            group.push(&NewEntry { kind: EntryKind::Frame, imei, received_at_us: 1, records: 1, bytes: content });
            let Ok(LogOutcome::Synced(synced)) = log.commit(&mut group) else { panic!("no room") };
            marks.push(synced.end());
        }
        (log, before, marks)
    };
    let (_, before, first) = append(&disk, &[b"committed", b"and lost."]);
    let (log, before_again, second) = append(&snapshot, &[b"instead o", b"f the one", b"s before."]);
    assert_eq!(before, before_again);
    let compare = |checkpoint| {
        log.catalog().history().compare(checkpoint, |position| Reader::tag_at(log.catalog(), position)).unwrap()
    };
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first.position, second.position);
        assert!(first.is_of_opening(*second));
        assert_eq!(compare(*first), HistoryMatch::Reidentify(HistoryMismatch::OtherHistory));
        assert_eq!(compare(*second), HistoryMatch::Agrees);
    }
    assert_eq!(compare(before), HistoryMatch::Agrees, "what both have in common");
}
