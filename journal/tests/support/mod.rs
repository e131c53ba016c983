//! A journal small enough to be looked at whole, and a trivial model of what it must hold.

#![allow(dead_code, reason = "each test uses a part")]

pub mod gated;

use std::sync::Arc;
use std::time::Duration;

use odograph_faulty_disk::FaultyDisk;
use odograph_journal::{
    EntryKind, Group, Limits, Log, LogOutcome, NewEntry, OpenError, OpeningDraw, OpeningReport, Options, Poisoned,
    Reader, RecoveryMode, SharedCatalog,
};
use odograph_journal::{JournalId, Position};
use teltonika_codecs::Imei;

/// Segments of 8 KiB, groups of at most 3 KiB, ten files.
pub fn limits() -> Limits {
    Limits::with_pieces(80 << 10, 8 << 10, 3 << 10, Duration::from_hours(1)).unwrap()
}

pub fn options() -> Options {
    Options { limits: limits(), recovery: RecoveryMode::Strict }
}

pub fn draw(tag: u32) -> OpeningDraw {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&tag.to_le_bytes());
    OpeningDraw { id: JournalId::from_bytes(id), tag, begin: Position(0) }
}

pub fn open(disk: &FaultyDisk, tag: u32) -> Result<(Log, OpeningReport), OpenError> {
    Log::open(Arc::new(disk.clone()), options(), draw(tag), 0)
}

pub fn open_skipping_damage(disk: &FaultyDisk, tag: u32) -> Result<(Log, OpeningReport), OpenError> {
    let options = Options { recovery: RecoveryMode::SkipDamage, ..options() };
    Log::open(Arc::new(disk.clone()), options, draw(tag), 0)
}

/// An entry that can be told from every other by its number.
pub fn content(number: u64) -> (EntryKind, Imei, i64, u8, Vec<u8>) {
    let mut rng = fastrand::Rng::with_seed(number);
    let length = if rng.u8(..) < 16 { rng.usize(800..1200) } else { rng.usize(0..200) };
    let mut bytes: Vec<u8> = number.to_le_bytes().into();
    // Headers of groups in the content must not confuse anybody.
    bytes.extend([b"ODG1".as_slice(), b"ODG2", &[]][rng.usize(0..3)]);
    bytes.extend((0..length).map(|_| rng.u8(..)));
    let kind = EntryKind::ALL[rng.usize(0..3)];
    (kind, Imei::try_from(rng.u64(0..1_000_000_000_000_000)).unwrap(), rng.i64(..), rng.u8(..), bytes)
}

pub fn push(group: &mut Group, number: u64) -> u64 {
    let (kind, imei, received_at_us, records, bytes) = content(number);
    let entry = NewEntry { kind, imei, received_at_us, records, bytes: &bytes };
    group.push(&entry);
    entry.stored_len() as u64
}

/// Commits entries with these numbers as one group.
pub fn commit(log: &mut Log, numbers: impl IntoIterator<Item = u64>) -> Result<LogOutcome, Poisoned> {
    let mut group = Group::default();
    for number in numbers {
        push(&mut group, number);
    }
    let outcome = log.commit(&mut group);
    while log.catalog().run_task(0) {}
    outcome
}

/// Commits, and wants it to be durable.
pub fn must_commit(log: &mut Log, numbers: impl IntoIterator<Item = u64>) {
    assert!(matches!(commit(log, numbers), Ok(LogOutcome::Synced(_))));
}

/// The numbers of all entries from `from` on, each checked against what was put in; with their positions.
pub fn read(catalog: &Arc<SharedCatalog>, from: Position) -> Vec<(u64, Position)> {
    let mut reader = Reader::open(catalog, from).unwrap();
    let mut numbers = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let number = u64::from_le_bytes(*entry.entry.bytes.first_chunk().unwrap());
        let (kind, imei, received_at_us, records, bytes) = content(number);
        assert_eq!(entry.entry, NewEntry { kind, imei, received_at_us, records, bytes: &bytes });
        let (position, length) = (entry.position, entry.entry.stored_len() as u64);
        numbers.push((number, position));
        assert_eq!(reader.cursor().position, Position(position.0 + length));
        assert_eq!(
            Reader::tag_at(catalog, reader.cursor().position).unwrap(),
            Some(reader.cursor().tag),
            "at {}",
            reader.cursor().position
        );
    }
    numbers
}

/// The numbers alone.
pub fn numbers(catalog: &Arc<SharedCatalog>) -> Vec<u64> {
    let begin = catalog.history().begin().position;
    read(catalog, begin).into_iter().map(|(number, _)| number).collect()
}

/// The names of all segments, oldest first.
pub fn segments(disk: &FaultyDisk) -> Vec<String> {
    use odograph_journal::Storage as _;
    let mut names: Vec<String> = disk.names().unwrap().into_iter().filter(|name| name.contains(".seg")).collect();
    names.sort();
    names
}

/// The name of the newest segment that holds something.
pub fn last_segment(disk: &FaultyDisk) -> String {
    let holds = |name: &String| disk.content(name).unwrap()[512..].iter().any(|byte| *byte != 0);
    segments(disk).into_iter().rfind(holds).unwrap()
}
