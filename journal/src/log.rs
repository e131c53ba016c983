//! The journal without threads: groups in, one at a time, each synced before the next. Time and randomness come from outside.
//!
//! The invariant: [`Synced`] exists only for a group whose write and sync both succeeded, and group n+1 of a segment is written
//! only after group n was synced. After a failed write or sync nothing is written any more.

use std::sync::Arc;

use super::catalog::Catalog;
use super::error::{OpenError, Poisoned};
use super::group::{Group, Header, SECTOR, extent};
use super::identity::{self, Identity, Origin};
use super::opening_draw::OpeningDraw;
use super::options::{Options, RecoveryMode};
use super::recovery::{OpeningReport, ReleasedPart, recover};
use super::segment::{self, SPARE, SegmentHeader, Spare};
use super::segment_tasks::remove_if_there;
use super::shared_catalog::SharedCatalog;
use super::status::FullCause;
use super::storage::{Storage, is_no_space};
use crate::position::{Mark, Position};

/// Proof that everything before a mark survives a power cut. Only [`Log::commit`] makes it, after the sync.
#[derive(Debug)]
pub struct Synced {
    end: Mark,
}

impl Synced {
    /// Everything before is durable.
    #[must_use]
    pub fn end(&self) -> Mark {
        self.end
    }
}

/// What became of a group.
#[derive(Debug)]
pub enum LogOutcome {
    /// It survives a power cut.
    Synced(Synced),
    /// Nothing was written for good; the group is as it was. Tasks, a release, or time may help.
    NoRoom,
}

/// The one that writes.
#[derive(Debug)]
pub struct Log {
    shared: Arc<SharedCatalog>,
    tag: i64,
    end: Mark,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    segment: Spare,
    /// Where the next group begins.
    offset: u64,
    /// The number of the next group.
    number: u64,
}

impl Log {
    /// Opens a journal without threads or lock: the caller runs the segment tasks, and commits group by group.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is found before anything is changed.
    pub fn open(
        storage: Arc<dyn Storage>,
        options: Options,
        draw: OpeningDraw,
        now_us: i64,
    ) -> Result<(Self, OpeningReport), OpenError> {
        let names = storage.names().map_err(|error| OpenError::io("listing", ".", error))?;
        let (identity, trust) = identify(&*storage, &names, options.recovery, draw)?;
        let mut found = recover(&*storage, &names, identity.origin, options.recovery, trust)?;
        remove_if_there(&*storage, SPARE).map_err(|error| OpenError::io("removing", SPARE, error))?;
        if found.segments.is_empty() {
            (found.end.position, found.released) = (draw.begin, draw.begin);
        }
        let opened = OpeningReport { new_id: trust == ReleasedPart::None, ..found.opened };
        let catalog = Catalog::new(options.limits, options.recovery, found);
        let shared = Arc::new(SharedCatalog::new(storage, identity, catalog));
        while shared.lock().spares.is_empty() && shared.run_task(now_us) {}
        let mut log = Self::new(Arc::clone(&shared), i64::from(draw.tag) << 32);
        // The first group of this opening proves where the journal ended before it. Without room it comes later.
        if let LogOutcome::NoRoom = log.commit(&mut Group::default())? {
            shared.run_task(now_us);
        }
        Ok((log, opened))
    }

    /// A log that goes on at the end of what was recovered, in a new segment, and writes `tag`.
    pub(super) fn new(shared: Arc<SharedCatalog>, tag: i64) -> Self {
        let end = shared.lock().end;
        Self { shared, tag, end, active: None }
    }

    /// What it holds, for those who read, release and compare.
    #[must_use]
    pub fn catalog(&self) -> &Arc<SharedCatalog> {
        &self.shared
    }

    /// Writes a group and syncs it. Also an empty one, which only notes how far the journal was released.
    ///
    /// # Errors
    /// [`Poisoned`], now and at every later call.
    pub fn commit(&mut self, group: &mut Group) -> Result<LogOutcome, Poisoned> {
        let length = u64::from(group.length());
        let needed = extent(length);
        let Some(end) = self.end.position.0.checked_add(length).filter(|end| i64::try_from(*end).is_ok()) else {
            let error =
                std::io::Error::other("its positions are used up; let it drain and start on an empty directory");
            return Err(self.poison("placing a group", error));
        };
        let released = {
            let mut catalog = self.shared.lock();
            if let Some(poisoned) = &catalog.poisoned {
                return Err(poisoned.clone());
            }
            let has_room = |active: &Active| active.offset + needed <= active.segment.size;
            if !self.active.as_ref().is_some_and(has_room) {
                let rolled = catalog.roll();
                self.shared.tasks.notify_one();
                let Some(segment) = rolled else { return Ok(LogOutcome::NoRoom) };
                self.active = Some(Active { segment, offset: SECTOR, number: 0 });
            }
            catalog.released
        };
        let Some(active) = &mut self.active else { return Ok(LogOutcome::NoRoom) };
        let header = Header {
            length: group.length(),
            entries: group.entries(),
            origin: self.shared.origin,
            segment: active.segment.number,
            number: active.number,
            position: self.end.position,
            released,
            tag: self.tag,
            tag_before: self.end.tag,
            is_summed: true,
        };
        let file = &active.segment.file;
        if let Err(error) = file.write_at(active.offset, group.seal(&header, active.offset, active.segment.size)) {
            if is_no_space(&error) {
                // Not synced, so not promised: the same place takes the same group later.
                self.shared.lock().full = Some(FullCause::NoSpace);
                return Ok(LogOutcome::NoRoom);
            }
            return Err(self.poison("writing a group", error));
        }
        if let Err(error) = file.sync() {
            return Err(self.poison("syncing a group", error));
        }
        active.offset += needed;
        active.number += 1;
        self.end = Mark { position: Position(end), tag: header.tag_behind(group.payload()) };
        self.publish(group);
        Ok(LogOutcome::Synced(Synced { end: self.end }))
    }

    /// Lets readers see what was synced.
    fn publish(&mut self, group: &Group) {
        let mut catalog = self.shared.lock();
        catalog.end = self.end;
        catalog.full = None;
        catalog.counts.groups += 1;
        catalog.counts.entries += u64::from(group.entries());
        if let (Some(segment), Some(active)) = (catalog.segments.back_mut(), &self.active) {
            segment.end = self.end.position;
            segment.used = active.offset;
            segment.newest_us = segment.newest_us.max(group.newest_us());
        }
        self.shared.wake_readers(catalog);
    }

    fn poison(&self, doing: &'static str, error: std::io::Error) -> Poisoned {
        self.shared.poison(Poisoned::new(doing, error))
    }
}

/// Reads the identity of the journal, or writes a new one if there is none.
fn identify(
    storage: &dyn Storage,
    names: &[String],
    recovery: RecoveryMode,
    draw: OpeningDraw,
) -> Result<(Identity, ReleasedPart), OpenError> {
    let has_segments = names.iter().any(|name| segment::number(name).is_some());
    let origin = match Identity::read(storage, names) {
        Ok(Some(identity)) => return Ok((identity, ReleasedPart::AsRecorded)),
        Ok(None) if !has_segments => Origin(draw.id.to_bytes()),
        Ok(None) if recovery == RecoveryMode::Strict => return Err(identity::missing()),
        Err(error @ OpenError::Damaged { .. }) if recovery == RecoveryMode::Strict => return Err(error),
        // The segments say where they come from; under a new id everything is drained again.
        Ok(None) | Err(OpenError::Damaged { .. }) => origin_of(storage, names)?.unwrap_or(Origin(draw.id.to_bytes())),
        Err(error) => return Err(error),
    };
    let identity = Identity { origin, id: draw.id };
    identity.write(storage).map_err(|error| OpenError::io("writing", identity::FILE, error))?;
    Ok((identity, ReleasedPart::None))
}

/// The origin that the first readable segment names.
fn origin_of(storage: &dyn Storage, names: &[String]) -> Result<Option<Origin>, OpenError> {
    for name in names.iter().filter(|name| segment::number(name).is_some()) {
        let file = storage.open(name).map_err(|error| OpenError::io("reading", name, error))?;
        if let Ok(header) = SegmentHeader::read(&*file, name, None) {
            return Ok(Some(header.origin));
        }
    }
    Ok(None)
}
