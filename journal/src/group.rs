//! The unit on disk: a header, and the entries that one sync makes durable. A group is whole or it is nothing.
//!
//! The checksum covers all of it, with the journal's origin, the segment and the group's number in that segment: so what an
//! earlier use of the file left behind never passes for content.

use crate::entry::NewEntry;
use crate::identity::Origin;
use crate::position::{Mark, Position};

/// A group while it gathers entries: one buffer, laid out as it will stand on disk.
#[derive(Debug)]
pub struct Group {
    /// Header, entries, and after sealing the padding.
    bytes: Vec<u8>,
    length: u32,
    entries: u32,
    newest_us: i64,
}

/// What the header of a group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of entries.
    pub(super) length: u32,
    /// Number of entries.
    pub(super) entries: u32,
    /// The journal's origin.
    pub(super) origin: Origin,
    /// The segment's number.
    pub(super) segment: u64,
    /// The group's number in its segment, from 0.
    pub(super) number: u64,
    /// The position of the first entry.
    pub(super) position: Position,
    /// How far the journal was released when the group was written: a hint, never ahead of the truth.
    pub(super) released: Position,
    /// The tag of the opening that wrote it. In format 2 its lower half is 0.
    pub(super) tag: i64,
    /// The tag of the mark before the first entry; 0 at the journal's beginning.
    pub(super) tag_before: i64,
    /// Whether the tags of this group's entries carry a checksum, as from format 2 on.
    pub(super) is_summed: bool,
}

impl Default for Group {
    fn default() -> Self {
        Self { bytes: vec![0; GROUP_HEADER], length: 0, entries: 0, newest_us: i64::MIN }
    }
}

impl Group {
    /// Adds an entry. The caller keeps to [`Limits::group_bytes`](super::Limits::group_bytes).
    pub fn push(&mut self, entry: &NewEntry<'_>) {
        entry.encode(&mut self.bytes);
        self.length += u32::try_from(entry.stored_len()).unwrap_or(u32::MAX);
        self.entries += 1;
        self.newest_us = self.newest_us.max(entry.received_at_us);
    }

    /// Empties it; the buffer stays.
    pub fn clear(&mut self) {
        self.bytes.truncate(GROUP_HEADER);
        self.length = 0;
        self.entries = 0;
        self.newest_us = i64::MIN;
    }

    /// Fills in the header, which must name this group's length, and pads with zeros, so that a write from `offset` ends with a page: a page that is written whole is
    /// never read first. Gives the bytes to write, at most up to `end`.
    pub(super) fn seal(&mut self, header: &Header, offset: u64, end: u64) -> &[u8] {
        let content = GROUP_HEADER + self.length as usize;
        self.bytes.truncate(content);
        if let Some(head) = self.bytes.first_chunk_mut::<GROUP_HEADER>() {
            *head = header.encode();
        }
        let sum = crc32fast::hash(self.bytes.get(SUMMED_FROM..).unwrap_or_default());
        if let Some(place) = self.bytes.get_mut(4..SUMMED_FROM) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        let until = (offset + content as u64).next_multiple_of(PAGE).min(end);
        self.bytes.resize(usize::try_from(until - offset).unwrap_or(content).max(content), 0);
        &self.bytes
    }

    /// Bytes of entries.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Number of entries.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// The entries as they are stored, one after the other.
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(GROUP_HEADER..GROUP_HEADER + self.length as usize).unwrap_or_default()
    }

    /// The newest receive time in it.
    pub(super) fn newest_us(&self) -> i64 {
        self.newest_us
    }
}

impl Header {
    fn encode(&self) -> [u8; GROUP_HEADER] {
        let Self { length, entries, origin, segment, number, position, released, tag, tag_before, is_summed } = *self;
        let mut out = [0; GROUP_HEADER];
        out[0..4].copy_from_slice(if is_summed { &GROUP_MAGIC } else { &GROUP_MAGIC_1 });
        out[8..12].copy_from_slice(&length.to_le_bytes());
        out[12..16].copy_from_slice(&entries.to_le_bytes());
        out[16..32].copy_from_slice(&origin.0);
        let numbers = [segment, number, position.0, released.0];
        for (place, number) in out[32..64].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        out[64..72].copy_from_slice(&tag.to_le_bytes());
        out[72..80].copy_from_slice(&tag_before.to_le_bytes());
        out
    }

    /// Reads a header without believing it: only the checksum over the whole group makes it true.
    pub(super) fn decode(bytes: &[u8; GROUP_HEADER]) -> Option<Self> {
        let four = |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
        let eight = |at: usize| bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map(u64::from_le_bytes);
        let is_summed = bytes[..4] == GROUP_MAGIC;
        (is_summed || bytes[..4] == GROUP_MAGIC_1).then_some(())?;
        Some(Self {
            length: four(8)?,
            entries: four(12)?,
            origin: Origin(bytes.get(16..32)?.try_into().ok()?),
            segment: eight(32)?,
            number: eight(40)?,
            position: Position(eight(48)?),
            released: Position(eight(56)?),
            tag: eight(64)?.cast_signed(),
            tag_before: eight(72)?.cast_signed(),
            is_summed,
        })
    }

    /// The mark before the first entry.
    pub(super) fn begin(&self) -> Mark {
        Mark { position: self.position, tag: self.tag_before }
    }

    /// Where the next entry begins.
    pub(super) fn end(&self) -> Position {
        Position(self.position.0.saturating_add(self.length.into()))
    }

    /// The tag of the mark behind the first entries, whose bytes as they are stored are `entries`.
    pub(super) fn tag_behind(&self, entries: &[u8]) -> i64 {
        if entries.is_empty() { self.tag_before } else { next_tag(self, self.tag_before, entries) }
    }

    /// Bytes that the group takes up in its file: to the sector where the next one begins.
    pub(super) fn extent(&self) -> u64 {
        extent(self.length.into())
    }
}

/// The tag of the mark behind `entries`, not empty, which come after a mark with the tag `before` in a group.
pub(super) fn next_tag(header: &Header, before: i64, entries: &[u8]) -> i64 {
    if !header.is_summed {
        return header.tag;
    }
    let before = u32::try_from(before & LOWER_HALF).unwrap_or_default();
    let mut sum = crc32fast::Hasher::new_with_initial(before);
    sum.update(entries);
    header.tag & !LOWER_HALF | i64::from(sum.finalize())
}

/// Bytes that a group of `length` bytes of entries takes up in its file.
pub(super) fn extent(length: u64) -> u64 {
    (GROUP_HEADER as u64 + length).next_multiple_of(SECTOR)
}

/// Whether a whole group's checksum is right.
pub(super) fn is_intact(group: &[u8]) -> bool {
    match (group.get(4..SUMMED_FROM), group.get(SUMMED_FROM..)) {
        (Some(sum), Some(summed)) => sum == crc32fast::hash(summed).to_le_bytes(),
        _ => false,
    }
}

/// Bytes before a group's entries.
pub const GROUP_HEADER: usize = 80;
/// Groups begin at multiples of this.
pub const SECTOR: u64 = 512;
/// No group holds more bytes of entries: a longer length is not believed.
pub const GROUP_LIMIT: u32 = 64 << 20;
/// What the system reads and writes at once.
const PAGE: u64 = 4096;
const GROUP_MAGIC: [u8; 4] = *b"ODG2";
/// Of format 1, which is only read.
const GROUP_MAGIC_1: [u8; 4] = *b"ODG1";
const LOWER_HALF: i64 = u32::MAX as i64;
/// The checksum covers everything behind itself.
const SUMMED_FROM: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            length: 0,
            entries: 0,
            origin: Origin([7; 16]),
            segment: 3,
            number: 4,
            position: Position(5),
            released: Position(2),
            tag: -6,
            tag_before: 8,
            is_summed: true,
        }
    }

    #[test]
    fn a_header_comes_back() {
        for is_summed in [true, false] {
            let header = Header { is_summed, ..header() };
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        let mut group = Group::default();
        let imei = "356307042441013".parse().unwrap();
        let kind = crate::EntryKind::Frame;
        group.push(&NewEntry { kind, imei, received_at_us: 1, records: 1, bytes: b"some bytes" });
        let length = group.length();
        let content = GROUP_HEADER + length as usize;
        let bytes = group.seal(&Header { length, entries: 1, ..header() }, 512, 1 << 20)[..content].to_vec();
        assert!(is_intact(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let head = flipped.first_chunk().unwrap();
            assert!(Header::decode(head).is_none() || !is_intact(&flipped), "bit {bit}");
        }
    }

    #[test]
    fn a_write_ends_with_a_page_or_with_the_segment() {
        let mut group = Group::default();
        assert_eq!(group.seal(&header(), 512, 1 << 20).len(), 4096 - 512);
        assert_eq!(group.seal(&header(), 4096 - 512, 1 << 20).len(), 512);
        assert_eq!(group.seal(&header(), 512, 1024).len(), 512);
    }
}
