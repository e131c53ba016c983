//! Segments: files of one size, made and filled with zeros ahead of time, used again when released. And the scanner over one.
//!
//! A file has a segment's name only while its header, synced before, says the same.

use std::io;
use std::sync::Arc;

use super::entry::{self, Entry};
use super::error::OpenError;
use super::group::{GROUP_HEADER, GROUP_LIMIT, Header, SECTOR, is_intact, next_tag};
use super::identity::Origin;
use super::label::{self, LABEL_LEN, Label};
use super::storage::StorageFile;
use crate::position::{Mark, Position};

/// A file that is ready to become, or to be made into, the next segment.
#[derive(Clone, Debug)]
pub(super) struct Spare {
    pub(super) number: u64,
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) size: u64,
}

/// The name of a segment's file.
pub(super) fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

/// The number in a segment's name; `None` for every other name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit())).then_some(())?;
    digits.parse().ok()
}

/// What the first sector of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) origin: Origin,
    pub(super) number: u64,
    /// Length of the file.
    pub(super) size: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; LABEL_LEN] {
        let mut content = [0; 32];
        content[..16].copy_from_slice(&self.origin.0);
        content[16..24].copy_from_slice(&self.number.to_le_bytes());
        content[24..].copy_from_slice(&self.size.to_le_bytes());
        label::encode(MAGIC, &content)
    }

    /// Reads the header of a file, and checks that it belongs where it stands.
    pub(super) fn read(file: &dyn StorageFile, name: &str, origin: Option<Origin>) -> Result<Self, OpenError> {
        let mut bytes = [0; LABEL_LEN];
        let read = file.read_at(0, &mut bytes).map_err(|error| OpenError::io("reading", name, error))?;
        let foreign = |reason| Err(OpenError::Foreign { name: name.to_owned(), reason });
        let content = match label::decode(MAGIC, bytes.get(..read).unwrap_or_default()) {
            Label::Whole(content) => content,
            Label::OtherVersion(version) => return Err(OpenError::OtherVersion { name: name.to_owned(), version }),
            Label::NotOurs => return foreign("it is not a segment"),
            Label::Damaged => {
                return Err(OpenError::Damaged {
                    name: name.to_owned(),
                    offset: 0,
                    what: "the segment's header is not whole",
                });
            }
        };
        let mut own = [0; 16];
        own.copy_from_slice(&content[..16]);
        let word = |from: usize| {
            content.get(from..from + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let header = Self { origin: Origin(own), number: word(16), size: word(24) };
        match origin {
            Some(origin) if origin != header.origin => foreign("it is a segment of another journal"),
            _ if number(name).is_some_and(|number| number != header.number) => {
                foreign("it has the name of another segment")
            }
            _ => Ok(header),
        }
    }
}

/// A segment that holds something, or will.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: Arc<dyn StorageFile>,
    /// Length of the file.
    pub(super) size: u64,
    /// Where its first entry begins.
    pub(super) start: Mark,
    /// Where the entry behind its last one begins; everything before is synced.
    pub(super) end: Position,
    /// Bytes of the file up to the end of its last synced group.
    pub(super) used: u64,
    /// The newest receive time in it.
    pub(super) newest_us: i64,
}

/// A scanner over the groups of one segment, through one bounded buffer. It believes only what its checksum proves.
#[derive(Debug)]
pub(super) struct GroupScanner {
    file: Arc<dyn StorageFile>,
    origin: Origin,
    segment: u64,
    /// The number that the next group must have.
    number: u64,
    /// Where the next group begins in the file.
    offset: u64,
    buffer: Vec<u8>,
    /// Where the buffer's first byte stands in the file.
    buffer_at: u64,
    /// Where the group last stepped on begins in the file.
    group_at: u64,
    /// Where its entries stand in the buffer.
    payload: std::ops::Range<usize>,
}

/// What stands at the scanner's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanStep {
    /// The next group; the scanner stands behind it, and its entries can be read.
    Group(Header),
    /// No group: the end, or something that is not whole.
    Nothing,
}

impl GroupScanner {
    pub(super) fn new(file: Arc<dyn StorageFile>, origin: Origin, segment: u64) -> Self {
        Self {
            file,
            origin,
            segment,
            number: 0,
            offset: SECTOR,
            buffer: Vec::new(),
            buffer_at: 0,
            group_at: SECTOR,
            payload: 0..0,
        }
    }

    /// Goes on with another segment; the buffer stays.
    pub(super) fn restart(&mut self, file: Arc<dyn StorageFile>, segment: u64) {
        (self.file, self.segment, self.number, self.offset) = (file, segment, 0, SECTOR);
        self.buffer.clear();
        self.payload = 0..0;
    }

    /// Steps over the next group, which must end at or before `limit` in the file.
    pub(super) fn step(&mut self, limit: u64) -> io::Result<ScanStep> {
        let Some(header) = self.header(self.offset, limit)?.filter(|header| header.number == self.number) else {
            return Ok(ScanStep::Nothing);
        };
        self.enter(self.offset, header, limit)
    }

    /// Looks for a group with the expected or a later number, at any sector from here to `limit`, and steps over it.
    pub(super) fn search(&mut self, limit: u64) -> io::Result<ScanStep> {
        let mut at = self.offset;
        while at < limit {
            if let Some(header) = self.header(at, limit)?.filter(|header| header.number >= self.number)
                && let ScanStep::Group(header) = self.enter(at, header, limit)?
            {
                return Ok(ScanStep::Group(header));
            }
            at += SECTOR;
        }
        Ok(ScanStep::Nothing)
    }

    /// Gives up on everything before `offset`.
    pub(super) fn skip_to(&mut self, offset: u64) {
        self.offset = self.offset.max(offset);
        self.payload = 0..0;
    }

    /// Where the next group begins in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    /// As [`Self::step`], beside a writer: what was read before may have become a group since.
    pub(super) fn step_again(&mut self, limit: u64) -> io::Result<ScanStep> {
        match self.step(limit)? {
            ScanStep::Nothing => {
                self.buffer.clear();
                self.step(limit)
            }
            group @ ScanStep::Group(_) => Ok(group),
        }
    }

    /// After a search from `offset` found `later`: steps over the group at `offset` if it is whole by now, else stands before
    /// `later` again.
    pub(super) fn step_back(&mut self, offset: u64, later: Header, limit: u64) -> io::Result<ScanStep> {
        let found_at = self.group_at;
        self.buffer.clear();
        if let Some(header) = self.header(offset, limit)?
            && header.number <= later.number
            && let ScanStep::Group(header) = self.enter(offset, header, limit)?
        {
            return Ok(ScanStep::Group(header));
        }
        (self.offset, self.number) = (found_at, later.number);
        self.payload = 0..0;
        Ok(ScanStep::Nothing)
    }

    /// Where the group last stepped on begins in the file.
    pub(super) fn group_at(&self) -> u64 {
        self.group_at
    }

    /// What claims to be the next group, whole or not.
    pub(super) fn remains(&mut self, limit: u64) -> io::Result<Option<Header>> {
        self.header(self.offset, limit)
    }

    /// The entries' bytes of the group last stepped on.
    pub(super) fn payload(&self) -> &[u8] {
        self.buffer.get(self.payload.clone()).unwrap_or_default()
    }

    /// The entries of the group last stepped on, which `header` describes.
    pub(super) fn entries(&self, header: &Header) -> impl Iterator<Item = Entry<'_>> {
        let (header, mut rest, mut at) = (*header, self.payload(), header.begin());
        std::iter::from_fn(move || {
            let (entry, length) = entry::decode(rest)?;
            let tag = next_tag(&header, at.tag, rest.get(..length)?);
            let found = Entry { position: at.position, tag, entry };
            rest = rest.get(length..)?;
            at = Mark { position: Position(at.position.0 + length as u64), tag };
            Some(found)
        })
    }

    /// The header at `at`, if it may be one of this segment's.
    fn header(&mut self, at: u64, limit: u64) -> io::Result<Option<Header>> {
        let Some(bytes) = self.bytes(at, GROUP_HEADER, limit)? else { return Ok(None) };
        let header = bytes.first_chunk().and_then(Header::decode);
        Ok(header.filter(|header| {
            header.origin == self.origin
                && header.segment == self.segment
                && header.length <= GROUP_LIMIT
                && at + header.extent() <= limit
        }))
    }

    /// Steps over the group at `at` if it is whole.
    fn enter(&mut self, at: u64, header: Header, limit: u64) -> io::Result<ScanStep> {
        let length = GROUP_HEADER + header.length as usize;
        match self.bytes(at, length, limit)? {
            Some(group) if is_intact(group) => {}
            _ => return Ok(ScanStep::Nothing),
        }
        let begin = usize::try_from(at - self.buffer_at).unwrap_or(usize::MAX);
        self.payload = begin + GROUP_HEADER..begin + length;
        (self.group_at, self.offset, self.number) = (at, at + header.extent(), header.number + 1);
        Ok(ScanStep::Group(header))
    }

    /// `length` bytes of the file from `at`, read in large pieces; `None` where the file ends before.
    /// What lies behind `limit` may still change, so it is not read.
    fn bytes(&mut self, at: u64, length: usize, limit: u64) -> io::Result<Option<&[u8]>> {
        let held = at.checked_sub(self.buffer_at).and_then(|skip| usize::try_from(skip).ok());
        let begin = if let Some(begin) = held.filter(|begin| begin + length <= self.buffer.len()) {
            begin
        } else {
            let most = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
            self.buffer.resize(length.max(READ_LEN).min(most), 0);
            let read = self.file.read_at(at, &mut self.buffer)?;
            self.buffer.truncate(read);
            self.buffer_at = at;
            0
        };
        Ok(self.buffer.get(begin..begin + length))
    }
}

/// The end of a segment's name.
const SUFFIX: &str = ".seg";
/// A file on its way to becoming a segment. One left behind means nothing.
pub(super) const SPARE: &str = "spare.tmp";
const MAGIC: [u8; 8] = *b"odoseg\0\0";
/// Small groups are read many at a time.
const READ_LEN: usize = 256 * 1024;
