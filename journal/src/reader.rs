//! Reading on behind the writer: from a position, entry by entry, always from the file, never past what is synced.
//!
//! One group is in memory at a time. Positions that were released may be given away under a reader; it says so then.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::catalog::Catalog;
use super::entry::{self, Entry};
use super::error::ReadError;
use super::group::{Header, next_tag};
use super::options::RecoveryMode;
use super::segment::{GroupScanner, ScanStep};
use super::shared_catalog::SharedCatalog;
use crate::position::{Mark, Position};

/// Reads entries in order.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<SharedCatalog>,
    /// Behind the entry last given.
    cursor: Mark,
    at: Option<SegmentCursor>,
}

/// A place in a segment.
#[derive(Debug)]
struct SegmentCursor {
    scanner: GroupScanner,
    /// The header of the group.
    group: Option<Header>,
    /// The part of the file that is synced, as of the last look.
    limit: u64,
    /// Where the next entry stands in the group's payload.
    next: usize,
}

/// What is at a position.
struct FoundPlace {
    /// `None` in a hole that damage left.
    tag: Option<i64>,
    /// Where the next whole group begins, if it is not there.
    behind_damage: Option<Mark>,
}

impl Reader {
    /// Reads from a position on: that of an entry, or the end of the journal.
    ///
    /// # Errors
    /// When the position is not kept, or is not the beginning of an entry.
    pub fn open(catalog: &Arc<SharedCatalog>, from: Position) -> Result<Self, ReadError> {
        let mut reader = Self { shared: Arc::clone(catalog), cursor: Mark { position: from, tag: 0 }, at: None };
        reader.seek()?;
        Ok(reader)
    }

    /// The tag of a position; `None` if no kept entry begins there.
    ///
    /// # Errors
    /// When the journal cannot be read there.
    pub fn tag_at(catalog: &Arc<SharedCatalog>, position: Position) -> Result<Option<i64>, ReadError> {
        let mut reader = Self { shared: Arc::clone(catalog), cursor: Mark { position, tag: 0 }, at: None };
        match reader.find() {
            Err(ReadError::NoEntry { .. }) => Ok(None),
            found => Ok(found?.tag),
        }
    }

    /// The next entry; `None` when everything synced was read.
    ///
    /// # Errors
    /// Those of a disk; and once everything is read, that the journal failed. After an error the cursor stands where it was.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its items")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, ReadError> {
        while self.is_group_done() {
            if !self.next_group()? {
                return Ok(None);
            }
        }
        let Some(at) = &mut self.at else { return Ok(None) };
        let (number, offset) = (at.scanner.segment(), at.scanner.group_at());
        let payload = at.scanner.payload().get(at.next..).unwrap_or_default();
        let Some((entry, length)) = entry::decode(payload) else {
            return Err(ReadError::Damaged { segment: number, offset });
        };
        at.next += length;
        let (stored, before) = (payload.get(..length).unwrap_or_default(), self.cursor.tag);
        let tag = at.group.map_or(before, |group| next_tag(&group, before, stored));
        let position = self.cursor.position;
        self.cursor = Mark { position: Position(position.0 + length as u64), tag };
        Ok(Some(Entry { position, tag, entry }))
    }

    /// Behind the entry last given, or where reading began.
    #[must_use]
    pub fn cursor(&self) -> Mark {
        self.cursor
    }

    /// Whether the entry after the cursor is synced, or reading it fails at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let catalog = self.shared.lock();
        self.has_more(&catalog)
    }

    /// Blocks until there is something to read, at most for `patience`; gives whether there is.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut catalog = self.shared.lock();
        while !self.has_more(&catalog) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.shared.synced.wait_timeout(catalog, left);
            catalog = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    /// Completes when there is something to read. Dropping it loses nothing.
    pub fn ready(&self) -> Ready<'_> {
        Ready { reader: self }
    }

    fn has_more(&self, catalog: &Catalog) -> bool {
        catalog.poisoned.is_some() || catalog.end.position > self.cursor.position
    }

    fn is_group_done(&self) -> bool {
        self.at.as_ref().is_none_or(|at| at.next >= at.scanner.payload().len())
    }

    /// Steps on the next group that holds something, in this segment or a later one; false when all is read.
    fn next_group(&mut self) -> Result<bool, ReadError> {
        let Some(at) = &mut self.at else { return self.next_segment() };
        let segment = at.scanner.segment();
        if at.scanner.offset() >= at.limit {
            return self.next_segment();
        }
        let failed = |source| ReadError::Io { segment, source };
        let offset = at.scanner.offset();
        let mut step = at.scanner.step(at.limit).map_err(failed)?;
        if step == ScanStep::Nothing {
            let catalog = self.shared.lock();
            let kept = catalog.segments.iter().find(|kept| kept.number == segment).map(|kept| kept.end);
            let recovery = catalog.recovery;
            drop(catalog);
            match kept {
                None => return Err(self.not_kept()),
                // A segment that was not looked at when the journal was opened ends where the next one begins.
                Some(end) if end <= self.cursor.position => {
                    at.scanner.skip_to(at.limit);
                    return Ok(true);
                }
                Some(_) if recovery == RecoveryMode::Strict => return Err(ReadError::Damaged { segment, offset }),
                Some(_) => step = at.scanner.search(at.limit).map_err(failed)?,
            }
        }
        match step {
            ScanStep::Group(header) => {
                (at.next, at.group) = (0, Some(header));
                self.skip_to(Mark { position: header.position, tag: header.tag_before });
            }
            ScanStep::Nothing => self.skip_segment(),
        }
        Ok(true)
    }

    /// Looks how far this segment is synced now, and goes to the next one at its end.
    fn next_segment(&mut self) -> Result<bool, ReadError> {
        let shared = Arc::clone(&self.shared);
        let catalog = shared.lock();
        if catalog.end.position <= self.cursor.position {
            return match &catalog.poisoned {
                Some(poisoned) => Err(poisoned.clone().into()),
                None => Ok(false),
            };
        }
        let Some(at) = &mut self.at else {
            drop(catalog);
            return self.seek().map(|()| true);
        };
        let number = at.scanner.segment();
        let Some(index) = catalog.segments.iter().position(|segment| segment.number == number) else {
            drop(catalog);
            return self.seek().map(|()| true);
        };
        match (catalog.segments.get(index), catalog.segments.get(index + 1)) {
            (Some(same), _) if same.used > at.limit => at.limit = same.used,
            (_, Some(next)) => {
                at.scanner.restart(Arc::clone(&next.file), next.number);
                (at.group, at.limit, at.next) = (None, next.used, 0);
                let start = next.start;
                drop(catalog);
                self.skip_to(start);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Goes to the entry at the cursor, or to the first one behind damage.
    fn seek(&mut self) -> Result<(), ReadError> {
        let found = self.find()?;
        self.cursor.tag = found.tag.unwrap_or_default();
        if let Some(behind) = found.behind_damage {
            self.skip_to(behind);
        }
        Ok(())
    }

    /// Finds the segment of the cursor, and the entry in it.
    fn find(&mut self) -> Result<FoundPlace, ReadError> {
        let wanted = self.cursor.position;
        let (mut scanner, start, limit, end) = {
            let catalog = self.shared.lock();
            if wanted < catalog.begin().position || wanted > catalog.end.position {
                drop(catalog);
                return Err(self.not_kept());
            }
            // The last one that begins at or before it; in a segment that is wholly before it nothing is found.
            let segment = catalog.segments.iter().rev().find(|segment| segment.start.position <= wanted);
            let Some(segment) = segment else {
                return Ok(FoundPlace { tag: Some(catalog.end.tag), behind_damage: None });
            };
            (
                GroupScanner::new(Arc::clone(&segment.file), self.shared.origin, segment.number),
                segment.start,
                segment.used,
                segment.end,
            )
        };
        let segment = scanner.segment();
        let failed = |source| ReadError::Io { segment, source };
        let (mut next, mut group, mut at) = (0, None, None);
        let mut tag = (start.position == wanted).then_some(start.tag);
        while scanner.offset() < limit && at.is_none_or(|at| at < end) {
            let offset = scanner.offset();
            let mut step = scanner.step(limit).map_err(failed)?;
            if step == ScanStep::Nothing && self.shared.lock().recovery == RecoveryMode::SkipDamage {
                step = scanner.search(limit).map_err(failed)?;
            }
            let ScanStep::Group(header) = step else { return Err(ReadError::Damaged { segment, offset }) };
            (at, group) = (Some(header.end()), Some(header));
            next = scanner.payload().len();
            if header.end() <= wanted {
                // That of an earlier place is of no use: the next group names its own.
                if header.end() == wanted {
                    tag = Some(header.tag_behind(scanner.payload()));
                }
                continue;
            }
            next = 0;
            while header.position.0 + (next as u64) < wanted.0 {
                let payload = scanner.payload().get(next..).unwrap_or_default();
                next += entry::decode(payload).ok_or(ReadError::Damaged { segment, offset })?.1;
            }
            if header.position.0 + (next as u64) > wanted.0 && header.position <= wanted {
                return Err(ReadError::NoEntry { wanted });
            }
            let mut behind_damage = None;
            if header.position <= wanted {
                tag = Some(header.tag_behind(scanner.payload().get(..next).unwrap_or_default()));
            } else {
                behind_damage = Some(Mark { position: header.position, tag: header.tag_before });
            }
            self.at = Some(SegmentCursor { scanner, group, limit, next });
            return Ok(FoundPlace { tag, behind_damage });
        }
        self.at = Some(SegmentCursor { scanner, group, limit, next });
        Ok(FoundPlace { tag, behind_damage: None })
    }

    /// Moves the cursor over positions that damage took away.
    fn skip_to(&mut self, mark: Mark) {
        if mark.position > self.cursor.position {
            let lost = mark.position.0 - self.cursor.position.0;
            self.shared.lock().counts.damage_skipped_bytes += lost;
            self.cursor = mark;
        }
    }

    /// Nothing whole is left in the synced part of this segment: goes on behind it.
    fn skip_segment(&mut self) {
        let Some(at) = &mut self.at else { return };
        let catalog = self.shared.lock();
        let Some(index) = catalog.segments.iter().position(|segment| segment.number == at.scanner.segment()) else {
            return;
        };
        let after = catalog.segments.get(index + 1).map_or(catalog.end, |next| next.start);
        if let Some(segment) = catalog.segments.get(index) {
            at.limit = segment.used;
            at.scanner.skip_to(at.limit);
            self.cursor = Mark { position: segment.end, tag: after.tag };
        }
    }

    fn not_kept(&self) -> ReadError {
        let catalog = self.shared.lock();
        let (begin, end) = (catalog.begin().position, catalog.end.position);
        ReadError::NotKept { wanted: self.cursor.position, begin, end }
    }
}

/// See [`Reader::ready`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Ready<'a> {
    reader: &'a Reader,
}

impl Future for Ready<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut catalog = self.reader.shared.lock();
        if self.reader.has_more(&catalog) {
            return Poll::Ready(());
        }
        if !catalog.readers.iter().any(|waker| waker.will_wake(context.waker())) {
            catalog.readers.push(context.waker().clone());
        }
        Poll::Pending
    }
}
