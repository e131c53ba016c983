//! The format on disk: today's program writes the sample in `fixtures/journal-v2` byte for byte, opens it and that of the version
//! before, and a reader that was written from the documentation alone understands both. To write a sample of a new version:
//! `ODOGRAPH_WRITE_FIXTURE=1`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use odograph_journal::{
    EntryKind, Files, Group, Limits, Log, LogOutcome, NewEntry, OpenError, OpeningDraw, Options, Reader, RecoveryMode,
};
use odograph_journal::{JournalId, Position};
use teltonika_codecs::Imei;

const SAMPLE_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/journal-v1");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/journal-v2");

/// Data fields that the vendor published, one of them with its second count changed; with kind, count and receive time.
const ENTRIES: [(EntryKind, u64, u8, i64, &str); 4] = [
    (
        EntryKind::Frame,
        356_307_042_441_013,
        1,
        1_560_166_592_123_456,
        "8E010000016B412CEE000100000000000000000000000000000000010005000100010100010011001D00010010015E2C880002000B000000003544C\
         87A000E000000001DD7E06A000001",
    ),
    (
        EntryKind::Frame,
        42,
        1,
        1_560_161_137_000_000,
        "08010000016B40D9AD80010000000000000000000000000000000103021503010101425E10000001",
    ),
    (
        EntryKind::Undecodable,
        42,
        1,
        1_560_161_138_000_000,
        "08010000016B40D9AD80010000000000000000000000000000000103021503010101425E10000002",
    ),
    (
        EntryKind::Message,
        356_307_042_441_013,
        0,
        1_560_161_139_000_000,
        "0C01060000002F4449313A31204449323A30204449333A302041494E313A302041494E323A313639323420444F313A3020444F323A3101",
    ),
];

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit.try_into().unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn options() -> Options {
    let limits = Limits::with_pieces(64 << 10, 4 << 10, 2 << 10, Duration::from_hours(1)).unwrap();
    Options { limits, recovery: RecoveryMode::Strict }
}

/// Two openings; three groups with entries; released behind the first entry.
fn write(directory: &Path) {
    let storage = Arc::new(Files::new(directory).unwrap());
    let entries: Vec<_> = ENTRIES.map(|(kind, imei, records, at, hex)| (kind, imei, records, at, from_hex(hex))).into();
    for (tag, groups) in [(0x1111, [(0, 1), (1, 3)].as_slice()), (0x2222, &[(3, 4)])] {
        let id = JournalId::from_bytes(*b"sample of v2 ...");
        let draw = OpeningDraw { id, tag, begin: Position(0) };
        let (mut log, _) = Log::open(storage.clone(), options(), draw, 0).unwrap();
        for (from, to) in groups.iter().copied() {
            let mut bytes = Group::default();
            for (kind, imei, records, received_at_us, content) in &entries[from..to] {
                let imei = Imei::try_from(*imei).unwrap();
                bytes.push(&NewEntry {
                    kind: *kind,
                    imei,
                    received_at_us: *received_at_us,
                    records: *records,
                    bytes: content,
                });
            }
            assert!(matches!(log.commit(&mut bytes), Ok(LogOutcome::Synced(_))));
            let mut reader = Reader::open(log.catalog(), Position(0)).unwrap();
            reader.next().unwrap();
            log.catalog().release(reader.cursor().position).unwrap();
        }
    }
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// A copy that may be changed.
fn copy(sample: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files(Path::new(sample)) {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let path = directory.path().to_owned();
    (directory, path)
}

#[test]
fn what_is_written_today_is_the_sample_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    if std::env::var_os("ODOGRAPH_WRITE_FIXTURE").is_some() {
        std::fs::create_dir_all(SAMPLE).unwrap();
        for (name, content) in files(directory.path()) {
            std::fs::write(Path::new(SAMPLE).join(name), content).unwrap();
        }
    }
    assert_eq!(files(directory.path()), files(Path::new(SAMPLE)));
}

#[test]
fn samples_of_both_versions_open_and_go_on() {
    for (sample, id, first_tags) in [
        (SAMPLE_1, *b"sample of v1 ...", [0x1111, 0x2222]),
        (SAMPLE, *b"sample of v2 ...", [0x1111 << 32, 0x2222 << 32]),
    ] {
        let (_guard, directory) = copy(sample);
        let draw = OpeningDraw { id: JournalId::random(), tag: 3, begin: Position(0) };
        let (mut log, opened) = Log::open(Arc::new(Files::new(&directory).unwrap()), options(), draw, 0).unwrap();
        assert_eq!(log.catalog().id(), JournalId::from_bytes(id));
        assert_eq!((opened.entries, opened.records, opened.torn_bytes, opened.new_id), (3, 2, 0, false));
        // One entry of today behind those of the sample.
        let imei = Imei::try_from(7).unwrap();
        let mut group = Group::default();
        group.push(&NewEntry { kind: EntryKind::Message, imei, received_at_us: 8, records: 1, bytes: b"today" });
        assert!(matches!(log.commit(&mut group), Ok(LogOutcome::Synced(_))));

        let mut reader = Reader::open(log.catalog(), Position(0)).unwrap();
        let mut marks = vec![reader.cursor()];
        for (at, (kind, imei, records, received_at_us, hex)) in ENTRIES.into_iter().enumerate() {
            let (imei, bytes) = (Imei::try_from(imei).unwrap(), from_hex(hex));
            assert_eq!(
                reader.next().unwrap().unwrap().entry,
                NewEntry { kind, imei, received_at_us, records, bytes: &bytes }
            );
            let expected = first_tags[usize::from(at >= 3)];
            let is_right = if sample == SAMPLE_1 {
                reader.cursor().tag == expected
            } else {
                reader.cursor().tag >> 32 == expected >> 32
            };
            assert!(is_right, "{:x}", reader.cursor().tag);
            marks.push(reader.cursor());
        }
        assert_eq!(reader.next().unwrap().unwrap().entry.bytes, b"today");
        marks.push(reader.cursor());
        assert!(reader.next().unwrap().is_none());
        assert_eq!(marks.last(), Some(&log.catalog().history().end()));
        for mark in &marks {
            assert_eq!(Reader::tag_at(log.catalog(), mark.position).unwrap(), Some(mark.tag), "{mark:?}");
        }
        drop(log);
        let places: Vec<_> = by_the_book(&files(&directory)).into_iter().map(|place| place.1).collect();
        assert_eq!(places, marks.iter().skip(1).map(|mark| mark.tag).collect::<Vec<_>>());
    }
}

/// Reads a journal with nothing but the documentation of the format. Gives device, tag of the place behind it, and content.
fn by_the_book(files: &BTreeMap<String, Vec<u8>>) -> Vec<(u64, i64, Vec<u8>)> {
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let label = |bytes: &[u8], magic: &[u8; 8]| {
        assert_eq!(&bytes[..8], magic.as_slice());
        assert!([1, 2].contains(&u32_at(bytes, 8)));
        assert_eq!(u32_at(bytes, 48), crc32fast::hash(&bytes[..48]));
        bytes[16..48].to_vec()
    };
    let origin = label(&files["identity"], b"odojrnl\0")[..16].to_vec();
    let (mut found, mut position, mut tag) = (Vec::new(), 0, 0);
    for (name, bytes) in files.iter().filter(|(name, _)| name.contains(".seg")) {
        let content = label(bytes, b"odoseg\0\0");
        let segment = u64_at(&content, 16);
        assert_eq!((&content[..16], format!("{segment:020}.seg")), (origin.as_slice(), name.clone()));
        assert_eq!(u64_at(&content, 24), bytes.len() as u64);
        let (mut at, mut number) = (512, 0);
        while at + 80 <= bytes.len() && [*b"ODG1", *b"ODG2"].iter().any(|magic| bytes[at..at + 4] == *magic) {
            let group = &bytes[at..];
            let length = u32_at(group, 8) as usize;
            if u32_at(group, 4) != crc32fast::hash(&group[8..80 + length])
                || group[16..32] != origin
                || (u64_at(group, 32), u64_at(group, 40)) != (segment, number)
            {
                break;
            }
            assert_eq!((u64_at(group, 48), u64_at(group, 72)), (position, tag));
            let (opening, is_second) = (u64_at(group, 64), &group[..4] == b"ODG2");
            let mut entries = &group[80..80 + length];
            for _ in 0..u32_at(group, 12) {
                let end = 24 + u32_at(entries, 0) as usize;
                tag = opening;
                if is_second {
                    assert!(opening >> 32 != 0 && opening.trailing_zeros() >= 32);
                    let mut sum =
                        crc32fast::Hasher::new_with_initial(u32::try_from(u64_at(group, 72) & 0xFFFF_FFFF).unwrap());
                    sum.update(&group[80..80 + length - entries.len() + end]);
                    tag |= u64::from(sum.finalize());
                }
                found.push((u64_at(entries, 8), tag.cast_signed(), entries[24..end].to_vec()));
                position += end as u64;
                entries = &entries[end..];
            }
            assert!(entries.is_empty());
            (at, number) = ((at + 80 + length).next_multiple_of(512), number + 1);
        }
    }
    found
}

#[test]
fn a_stranger_can_read_the_samples_from_the_documentation() {
    let wanted: Vec<_> = ENTRIES.into_iter().map(|(_, imei, _, _, hex)| (imei, from_hex(hex))).collect();
    for sample in [SAMPLE_1, SAMPLE] {
        let found = by_the_book(&files(Path::new(sample)));
        assert_eq!(found.into_iter().map(|(imei, _, content)| (imei, content)).collect::<Vec<_>>(), wanted);
    }
}

/// Whatever stands in a directory: an error or a part of what was there, never a panic, never something else.
#[test]
fn no_content_of_the_files_can_surprise() {
    let sample = files(Path::new(SAMPLE));
    let names: Vec<&String> = sample.keys().filter(|name| *name != "lock").collect();
    let wanted: Vec<_> = by_the_book(&sample).into_iter().map(|(imei, _, content)| (imei, content)).collect();
    let mut outcomes = [0; 3];
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = odograph_faulty_disk::FaultyDisk::new(seed);
        for name in &names {
            disk.put(name, sample[*name].clone());
        }
        for _ in 0..rng.usize(1..4) {
            let name = names[rng.usize(0..names.len())];
            let mut content = disk.content(name).unwrap();
            let at = if rng.bool() {
                rng.usize(0..content.len().max(1))
            } else {
                rng.usize(0..content.len().clamp(1, 1400))
            };
            match rng.u8(0..5) {
                0 => content.truncate(at),
                1 => content.extend(std::iter::repeat_n(0, at)),
                2 => content[at..].fill(rng.u8(..)),
                _ => content.iter_mut().skip(at).take(rng.usize(1..5)).for_each(|byte| *byte = rng.u8(..)),
            }
            if content.is_empty() {
                content.push(0);
            }
            disk.put(name, content);
        }
        let recovery = if rng.bool() { RecoveryMode::Strict } else { RecoveryMode::SkipDamage };
        let draw = OpeningDraw { id: JournalId::random(), tag: 3, begin: Position(0) };
        match Log::open(Arc::new(disk.clone()), Options { recovery, ..options() }, draw, 0) {
            Err(OpenError::Poisoned(error)) => panic!("seed {seed}: {error}"),
            Err(_) => outcomes[0] += 1,
            Ok((log, _)) => {
                let begin = log.catalog().history().begin().position;
                let mut reader = Reader::open(log.catalog(), begin).unwrap();
                let mut found = Vec::new();
                while let Some(entry) = reader.next().unwrap() {
                    found.push((entry.entry.imei.get(), entry.entry.bytes.to_vec()));
                }
                let mut rest = wanted.iter();
                assert!(found.iter().all(|found| rest.any(|wanted| wanted == found)), "seed {seed}");
                outcomes[if found.len() == wanted.len() { 1 } else { 2 }] += 1;
            }
        }
    }
    let [refused, whole, part] = outcomes;
    println!("{refused} refused, {whole} whole, {part} in part");
    assert!(refused > 100 && whole > 100 && part > 100, "{outcomes:?}");
}
