//! Reading a journal's files without opening the journal: for replay, `inspect` and `dump`. Changes nothing, takes no lock, works
//! beside a running writer and on what another process left behind.
//!
//! It gives every whole group, also one that is not synced yet, so it must not decide what was accepted. A file that is given away
//! while it is read ends early.

use std::io;
use std::sync::Arc;

use teltonika_codecs::Imei;
use uuid::Uuid;

use super::entry::{Entry, NewEntry};
use super::error::OpenError;
use super::group::{Header, next_tag};
use super::identity::{self, Identity};
use super::segment::{self, GroupScanner, ScanStep, SegmentHeader};
use super::storage::{Storage, StorageFile};
use crate::position::{JournalId, Mark, Position};

/// The files of a journal.
#[derive(Debug)]
pub struct Archive {
    storage: Arc<dyn Storage>,
    identity: Identity,
}

/// Which entries are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Received at this time or later, microseconds since 1970-01-01 UTC.
    pub from_us: Option<i64>,
    /// Received before this time.
    pub to_us: Option<i64>,
    /// From this device.
    pub imei: Option<Imei>,
}

impl Archive {
    /// Looks at the files that are there now.
    ///
    /// # Errors
    /// When there is no journal, or its identity cannot be read.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self, OpenError> {
        let names = storage.names().map_err(|error| OpenError::io("listing", ".", error))?;
        match Identity::read(&*storage, &names)? {
            Some(identity) => Ok(Self { storage, identity }),
            None if names.iter().any(|name| segment::number(name).is_some()) => Err(identity::missing()),
            None => Err(OpenError::io("finding", identity::FILE, io::ErrorKind::NotFound.into())),
        }
    }

    /// The journal's id.
    #[must_use]
    pub fn id(&self) -> JournalId {
        self.identity.id
    }

    /// See [`SharedCatalog::content_id`](crate::SharedCatalog::content_id).
    #[must_use]
    pub fn content_id(&self, tag: i64) -> Uuid {
        self.identity.origin.content_id(tag)
    }

    /// The numbers of the segments that are there now, oldest first.
    pub fn segments(&self) -> Result<Vec<u64>, OpenError> {
        let names = self.storage.names().map_err(|error| OpenError::io("listing", ".", error))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Begins to read one segment; `None` if it was given away meanwhile.
    pub fn scan(&self, number: u64) -> Result<Option<Scan>, OpenError> {
        // A file that becomes another segment between its name and its header has lost the name when one looks again.
        match self.try_scan(number) {
            Err(OpenError::Foreign { .. }) => self.try_scan(number),
            scan => scan,
        }
    }

    fn try_scan(&self, number: u64) -> Result<Option<Scan>, OpenError> {
        let name = segment::name(number);
        let file = match self.storage.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| OpenError::io("opening", &name, error))?,
        };
        let size = file.size().map_err(|error| OpenError::io("reading", &name, error))?;
        let header_damaged = match SegmentHeader::read(&*file, &name, Some(self.identity.origin)) {
            Ok(header) => header.size != size,
            Err(OpenError::Damaged { .. }) => true,
            Err(error) => return Err(error),
        };
        let scanner = GroupScanner::new(Arc::clone(&file), self.identity.origin, number);
        Ok(Some(Scan { name, file, size, scanner, current: None, damage: header_damaged.then_some(0) }))
    }

    /// Reads the wanted entries of all segments, oldest first.
    pub fn entries(&self, filter: Filter) -> Result<Entries<'_>, OpenError> {
        let left = self.segments()?.into_iter();
        Ok(Entries {
            archive: self,
            filter,
            left,
            scan: None,
            next: 0,
            cursor: Mark::START,
            damages: 0,
            given_away: 0,
            may_be_cut: false,
        })
    }
}

/// Reads one segment, group by group.
#[derive(Debug)]
pub struct Scan {
    name: String,
    file: Arc<dyn StorageFile>,
    size: u64,
    scanner: GroupScanner,
    current: Option<Header>,
    /// Damage that was found and not told yet.
    damage: Option<u64>,
}

/// What stands in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanItem {
    /// A whole group.
    Group(GroupView),
    /// From this byte of the file on something is damaged.
    Damage {
        /// Where.
        offset: u64,
    },
}

/// A group as people look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its number in the segment.
    pub number: u64,
    /// The position of its first entry.
    pub position: Position,
    /// The position behind its last entry.
    pub end: Position,
    /// Number of entries.
    pub entries: u32,
    /// How far the journal was released when it was written.
    pub released: Position,
    /// The tag of the opening that wrote it.
    pub tag: i64,
}

impl Scan {
    /// What comes next; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "the entries are lent between two calls")]
    pub fn next(&mut self) -> Result<Option<ScanItem>, OpenError> {
        let failed = |error| OpenError::io("reading", &self.name, error);
        if let Some(offset) = self.damage.take() {
            return Ok(Some(ScanItem::Damage { offset }));
        }
        let group = match self.scanner.step_again(self.size).map_err(failed)? {
            ScanStep::Group(header) => header,
            ScanStep::Nothing => {
                let offset = self.scanner.offset();
                match self.scanner.search(self.size).map_err(failed)? {
                    ScanStep::Nothing => return Ok(None),
                    // What was being written before may be whole by now: then nothing is damaged.
                    ScanStep::Group(later) => match self.scanner.step_back(offset, later, self.size).map_err(failed)? {
                        ScanStep::Group(header) => header,
                        ScanStep::Nothing if self.was_given_away() => return Ok(None),
                        ScanStep::Nothing => return Ok(Some(ScanItem::Damage { offset })),
                    },
                }
            }
        };
        self.current = Some(group);
        Ok(Some(ScanItem::Group(GroupView {
            offset: self.scanner.group_at(),
            number: group.number,
            position: group.position,
            end: group.end(),
            entries: group.entries,
            released: group.released,
            tag: group.tag,
        })))
    }

    /// The entries of the group last given.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.current.iter().flat_map(|header| self.scanner.entries(header))
    }

    /// Whether the file has become another segment while it was read.
    fn was_given_away(&self) -> bool {
        matches!(SegmentHeader::read(&*self.file, &self.name, None), Err(OpenError::Foreign { .. }))
    }

    /// Length of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Reads the wanted entries.
#[derive(Debug)]
pub struct Entries<'a> {
    archive: &'a Archive,
    filter: Filter,
    left: std::vec::IntoIter<u64>,
    scan: Option<Scan>,
    /// Bytes of the current group's entries that were looked at.
    next: usize,
    /// Behind the entry last looked at.
    cursor: Mark,
    damages: u64,
    given_away: u64,
    /// The last segment had become another one when its end was met.
    may_be_cut: bool,
}

impl Entries<'_> {
    /// The next one; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its items")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, OpenError> {
        let (at, length) = loop {
            if let Some(found) = self.next_in_group() {
                break found;
            }
            if !self.next_group()? {
                return Ok(None);
            }
        };
        let payload = self.scan.as_ref().map(|scan| scan.scanner.payload()).unwrap_or_default();
        let (position, tag) = (Position(self.cursor.position.0 - length as u64), self.cursor.tag);
        let entry = super::entry::decode(payload.get(at..).unwrap_or_default());
        Ok(entry.map(|(entry, _)| Entry { position, tag, entry }))
    }

    /// Damaged places that were passed over so far.
    #[must_use]
    pub fn damages(&self) -> u64 {
        self.damages
    }

    /// Segments that were there at the beginning and were given away before they were read, or while they were.
    #[must_use]
    pub fn given_away(&self) -> u64 {
        self.given_away
    }

    /// Where the next wanted entry of the current group is, and its length.
    fn next_in_group(&mut self) -> Option<(usize, usize)> {
        let Scan { scanner, current, .. } = self.scan.as_ref()?;
        let (payload, group) = (scanner.payload(), current.as_ref()?);
        loop {
            let at = self.next;
            let (entry, length) = super::entry::decode(payload.get(at..)?)?;
            self.next += length;
            let tag = next_tag(group, self.cursor.tag, payload.get(at..self.next)?);
            self.cursor = Mark { position: Position(self.cursor.position.0 + length as u64), tag };
            if self.filter.wants(&entry) {
                return Some((at, length));
            }
        }
    }

    /// Goes to the next group; false when there is none.
    fn next_group(&mut self) -> Result<bool, OpenError> {
        loop {
            match self.scan.as_mut().map(Scan::next).transpose()?.flatten() {
                Some(ScanItem::Group(group)) => {
                    self.given_away +=
                        u64::from(std::mem::take(&mut self.may_be_cut) && group.position > self.cursor.position);
                    let tag = self.scan.as_ref().and_then(|scan| scan.current).map_or(0, |header| header.tag_before);
                    (self.next, self.cursor) = (0, Mark { position: group.position, tag });
                    return Ok(true);
                }
                Some(ScanItem::Damage { .. }) => self.damages += 1,
                None => {
                    self.may_be_cut |= self.scan.as_ref().is_some_and(Scan::was_given_away);
                    let Some(number) = self.left.next() else { return Ok(false) };
                    self.scan = self.archive.scan(number)?;
                    self.given_away += u64::from(self.scan.is_none());
                }
            }
        }
    }
}

impl Filter {
    fn wants(&self, entry: &NewEntry<'_>) -> bool {
        let Self { from_us, to_us, imei } = *self;
        from_us.is_none_or(|from| entry.received_at_us >= from)
            && to_us.is_none_or(|to| entry.received_at_us < to)
            && imei.is_none_or(|imei| entry.imei == imei)
    }
}
