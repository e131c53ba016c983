//! Reading a journal from outside while its owner gives segments away: what is gone is counted, and nothing wrong is read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use odograph_faulty_disk::FaultyDisk;
use odograph_journal::{Archive, Entries, Filter, NewEntry};
use support::{content, must_commit, open};

/// The numbers of the entries that are left, each checked against what was put in.
fn numbers(entries: &mut Entries<'_>, most: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < most
        && let Some(entry) = entries.next().unwrap()
    {
        let number = u64::from_le_bytes(*entry.entry.bytes.first_chunk().unwrap());
        let (kind, imei, received_at_us, records, bytes) = content(number);
        assert_eq!(entry.entry, NewEntry { kind, imei, received_at_us, records, bytes: &bytes });
        numbers.push(number);
    }
    numbers
}

#[test]
fn segments_that_are_used_again_while_they_are_read_are_skipped_and_counted() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    (0..100).for_each(|number| must_commit(&mut log, [number]));
    let archive = Archive::open(Arc::new(disk.clone())).unwrap();
    let mut whole = archive.entries(Filter::default()).unwrap();
    assert_eq!(numbers(&mut whole, usize::MAX), (0..100).collect::<Vec<_>>());
    assert_eq!((whole.given_away(), whole.damages()), (0, 0));

    let mut overtaken = archive.entries(Filter::default()).unwrap();
    let begun = numbers(&mut overtaken, 3);
    // The writer goes round its whole directory.
    for number in 100..400 {
        let end = log.catalog().status().end;
        log.catalog().release(end).unwrap();
        must_commit(&mut log, [number]);
    }
    let rest = numbers(&mut overtaken, usize::MAX);
    assert_eq!(begun, [0, 1, 2]);
    assert!(rest.iter().all(|number| *number < 100) && rest.is_sorted(), "{rest:?}");
    assert!(rest.len() < 97, "something was given away");
    assert!(overtaken.given_away() > 0, "and that was noticed");
    assert_eq!(overtaken.damages(), 0, "it is no damage");
}
