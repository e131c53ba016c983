//! Opening: what a directory holds after whatever happened to it.
//!
//! A group that is not whole, with a later whole group in the same file or with another segment behind it that does not go on
//! where it began, was synced once: that is damage. Without either it is a torn tail, which nobody was told about: it is
//! overwritten with zeros. What survives is written and synced again before anything may be read, since a sync that failed
//! before may have left it in memory alone.

use std::io;
use std::sync::Arc;

use super::error::OpenError;
use super::group::{Header, SECTOR};
use super::identity::Origin;
use super::options::RecoveryMode;
use super::segment::{self, GroupScanner, ScanStep, Segment, SegmentHeader, Spare};
use super::storage::{Storage, StorageFile};
use crate::position::{Mark, Position};

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpeningReport {
    /// Whether the journal has an id that no database knows: it was made just now, or had lost it.
    pub new_id: bool,
    /// Entries that are not released.
    pub entries: u64,
    /// The counts of frames among them; undecodable ones with the count that they were acknowledged with.
    pub records: u64,
    /// Length of the group that was under way and is not whole, as far as its header says.
    pub torn_bytes: u64,
    /// Places that are damaged.
    pub damages: u64,
    /// Positions that were lost there.
    pub damage_skipped_bytes: u64,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct RecoveredState {
    pub(super) segments: Vec<Segment>,
    pub(super) unused: Vec<Spare>,
    pub(super) end: Mark,
    pub(super) released: Position,
    pub(super) next_number: u64,
    pub(super) opened: OpeningReport,
}

/// A segment file with its first whole group.
struct FoundSegment {
    number: u64,
    file: Arc<dyn StorageFile>,
    size: u64,
    first: Option<Header>,
}

/// Which part of the journal counts as released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReleasedPart {
    AsRecorded,
    None,
}

/// Reads a directory, and makes what it holds durable.
pub(super) fn recover(
    storage: &dyn Storage,
    names: &[String],
    origin: Origin,
    mode: RecoveryMode,
    trust: ReleasedPart,
) -> Result<RecoveredState, OpenError> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let mut found = RecoveredState {
        next_number: numbers.last().map_or(1, |last| last.saturating_add(1)),
        ..RecoveredState::default()
    };
    let mut damage = Damage { mode, opened: &mut found.opened };
    let mut files = Vec::new();
    for number in numbers {
        let FoundSegment { number, file, size, first } = inspect_segment(storage, number, origin, &mut damage)?;
        match first {
            Some(first) => files.push((number, file, size, first)),
            None => found.unused.push(Spare { number, file, size }),
        }
    }
    // The last group of all knows how far the journal was released, so the last segment comes first.
    let (mut after, mut tail): (Option<Header>, Option<TailGroup>) = (None, None);
    for (number, file, size, first) in files.into_iter().rev() {
        let until = after.map(|after| after.position);
        let start = Mark { position: first.position, tag: first.tag_before };
        let mut segment = Segment {
            number,
            file,
            size,
            start,
            end: until.unwrap_or(first.position),
            used: size,
            newest_us: i64::MIN,
        };
        if until.is_none_or(|until| until > found.released) {
            let last = verify(&mut segment, origin, until, found.released, &mut damage)?;
            if until.is_none() {
                found.end = Mark { position: segment.end, tag: last.end_tag };
                if trust == ReleasedPart::AsRecorded {
                    found.released = last.header.released.min(segment.end);
                }
                // Only now is it known which of its entries are waiting.
                count(&segment, origin, found.released, damage.opened)?;
                tail = Some(last);
            }
        } else {
            // Committed: it is looked at when somebody reads it. Its newest time is about where the next one begins.
            segment.newest_us = found.segments.last().map_or(i64::MIN, |next: &Segment| next.newest_us);
        }
        after = Some(first);
        found.segments.push(segment);
    }
    found.segments.reverse();
    // From here on the journal is sure to open, unless the disk fails.
    if let (Some(segment), Some(tail)) = (found.segments.last(), &mut tail) {
        found.opened.torn_bytes = secure(segment, tail)?;
    }
    // Openings that took nothing in would use up the files of a journal that cannot drain. Their end is known from before.
    while let [.., _, last] = found.segments.as_slice()
        && last.start.position == last.end
    {
        let emptied = found.segments.pop();
        found.unused.extend(emptied.map(|Segment { number, file, size, .. }| Spare { number, file, size }));
    }
    storage.sync_names().map_err(|error| OpenError::io("syncing", ".", error))?;
    Ok(found)
}

/// Looks at a segment's header and first group.
fn inspect_segment(
    storage: &dyn Storage,
    number: u64,
    origin: Origin,
    damage: &mut Damage<'_>,
) -> Result<FoundSegment, OpenError> {
    let name = segment::name(number);
    let failed = |error| OpenError::io("reading", &name, error);
    let file = storage.open(&name).map_err(failed)?;
    let size = file.size().map_err(failed)?;
    match SegmentHeader::read(&*file, &name, Some(origin)) {
        Ok(header) if header.size == size => {}
        Ok(_) => damage.is(
            OpenError::Damaged { name: name.clone(), offset: size, what: "file length differs from its header" },
            0,
        )?,
        Err(error @ OpenError::Damaged { .. }) => damage.is(error, 0)?,
        Err(error) => return Err(error),
    }
    let mut scanner = GroupScanner::new(Arc::clone(&file), origin, number);
    let first = match scanner.step(size).map_err(failed)? {
        ScanStep::Group(first) => Some(first),
        ScanStep::Nothing => match scanner.search(size).map_err(failed)? {
            ScanStep::Group(later) => {
                damage.is(OpenError::Damaged { name: name.clone(), offset: SECTOR, what: LATER_GROUP }, 0)?;
                Some(later)
            }
            ScanStep::Nothing => None,
        },
    };
    Ok(FoundSegment { number, file, size, first })
}

/// Walks all of a segment, to where the next one goes on; gives its last group.
fn verify(
    segment: &mut Segment,
    origin: Origin,
    until: Option<Position>,
    released: Position,
    damage: &mut Damage<'_>,
) -> Result<TailGroup, OpenError> {
    let name = segment::name(segment.number);
    let failed = |error| OpenError::io("reading", &name, error);
    let damaged = |offset, what| OpenError::Damaged { name: name.clone(), offset, what };
    let mut scanner = GroupScanner::new(Arc::clone(&segment.file), origin, segment.number);
    let mut end = segment.start.position;
    let mut last = None;
    loop {
        let step = scanner.step(segment.size).map_err(failed)?;
        let bad = scanner.offset();
        let step = if step == ScanStep::Nothing { scanner.search(segment.size).map_err(failed)? } else { step };
        let ScanStep::Group(header) = step else { break };
        if header.position > end {
            damage.is(damaged(bad, LATER_GROUP), header.position.0 - end.0)?;
        } else if header.position < end {
            return Err(OpenError::Foreign { name, reason: "a group begins before the one before it ends" });
        }
        let entries = scanner.entries(&header);
        let (mut read, mut whole) = (0, 0);
        for entry in entries {
            read += 1;
            whole += entry.entry.stored_len() as u64;
            segment.newest_us = segment.newest_us.max(entry.entry.received_at_us);
            if until.is_some() && entry.position >= released {
                damage.opened.entries += 1;
                damage.opened.records += u64::from(entry.entry.records);
            }
        }
        if read != header.entries || whole != u64::from(header.length) {
            return Err(OpenError::Foreign { name, reason: "it holds entries that this version does not know" });
        }
        (end, segment.used) = (header.end(), scanner.offset());
        last = Some((header, scanner.group_at(), header.tag_behind(scanner.payload())));
    }
    if let Some(until) = until.filter(|until| *until != end) {
        if until < end {
            return Err(OpenError::Foreign { name, reason: "the next segment begins before it ends" });
        }
        damage.is(damaged(scanner.offset(), "the next segment begins later than it ends"), until.0 - end.0)?;
    }
    segment.end = end;
    // There was a first group, so there is a last one.
    let (header, at, end_tag) = last.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
    Ok(TailGroup { header, at, end_tag, scanner })
}

/// Counts what waits in the last segment.
fn count(segment: &Segment, origin: Origin, released: Position, opened: &mut OpeningReport) -> Result<(), OpenError> {
    let failed = |error| OpenError::io("reading", &segment::name(segment.number), error);
    let mut scanner = GroupScanner::new(Arc::clone(&segment.file), origin, segment.number);
    while scanner.offset() < segment.used {
        let ScanStep::Group(header) = scanner.search(segment.used).map_err(failed)? else { break };
        for entry in scanner.entries(&header).filter(|entry| entry.position >= released) {
            opened.entries += 1;
            opened.records += u64::from(entry.entry.records);
        }
    }
    Ok(())
}

/// Makes the last segment durable as it was read: its last group is written again, and zeros behind it. Gives the length of
/// the torn group, as far as its header is there.
fn secure(segment: &Segment, last: &mut TailGroup) -> Result<u64, OpenError> {
    let name = segment::name(segment.number);
    let read = |error| OpenError::io("reading", &name, error);
    let write = |error| OpenError::io("securing the end of", &name, error);
    let torn = last.scanner.remains(segment.size).map_err(read)?.map_or(0, |header| header.extent());
    let file = &segment.file;
    let mut group = vec![0; usize::try_from(segment.used - last.at).unwrap_or(0)];
    file.read_at(last.at, &mut group).map_err(read)?;
    file.write_at(last.at, &group).map_err(write)?;
    let mut at = segment.used;
    let mut buffer = vec![0; usize::try_from(segment.size.saturating_sub(at)).unwrap_or(CLEAN_LEN).min(CLEAN_LEN)];
    while at < segment.size {
        let length = usize::try_from(segment.size - at).unwrap_or(CLEAN_LEN).min(CLEAN_LEN);
        let piece = buffer.get_mut(..length).unwrap_or_default();
        file.read_at(at, piece).map_err(read)?;
        if piece.iter().any(|byte| *byte != 0) {
            piece.fill(0);
            file.write_at(at, piece).map_err(write)?;
        }
        at += length as u64;
    }
    file.sync().map_err(write)?;
    Ok(torn)
}

/// The last group of a segment.
struct TailGroup {
    header: Header,
    at: u64,
    /// The tag of the mark behind it.
    end_tag: i64,
    /// Stands behind it.
    scanner: GroupScanner,
}

/// Decides about damage as the operator did.
struct Damage<'a> {
    mode: RecoveryMode,
    opened: &'a mut OpeningReport,
}

impl Damage<'_> {
    fn is(&mut self, damage: OpenError, lost_bytes: u64) -> Result<(), OpenError> {
        match self.mode {
            RecoveryMode::Strict => Err(damage),
            RecoveryMode::SkipDamage => {
                self.opened.damages += 1;
                self.opened.damage_skipped_bytes += lost_bytes;
                Ok(())
            }
        }
    }
}

const LATER_GROUP: &str = "a group is incomplete, and a later one is complete";
const CLEAN_LEN: usize = 1 << 20;
