//! Opening and closing a journal.

use std::any::Any;
use std::io;
use std::sync::Arc;

use super::catalog::Catalog;
use super::chores::remove_if_there;
use super::error::{OpenError, Poisoned};
use super::group::Group;
use super::identity::{self, Identity, Origin};
use super::log::{Log, LogOutcome};
use super::options::{Options, RecoveryMode};
use super::queue::Appender;
use super::recovery::{OpeningReport, Released, recover};
use super::segment::{self, SPARE, SegmentHeader};
use super::shared_catalog::SharedCatalog;
use super::storage::Storage;
use super::writer::{OnSync, Threads};
use crate::position::{JournalId, Position};
use crate::wall_clock::system_us;

/// What an opening draws at random. Given from outside, so that a simulation can repeat itself.
#[derive(Clone, Copy, Debug)]
pub struct OpeningDraw {
    /// The id of a journal that is made now.
    pub id: JournalId,
    /// The tag of this opening; not 0.
    pub tag: i64,
    /// Where a journal begins that is made now: 0, but in tests of its end.
    pub begin: Position,
}

impl OpeningDraw {
    /// From the system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        // Some bits of a random UUID are fixed and not 0, among them one of its first eight bytes.
        let [tag @ .., _, _, _, _, _, _, _, _] = JournalId::random().to_bytes();
        Self { id: JournalId::random(), tag: i64::from_le_bytes(tag), begin: Position(0) }
    }
}

/// An open journal with its threads. Sessions hold its [`Appender`], the drain its [`SharedCatalog`].
#[derive(Debug)]
pub struct Journal {
    shared: Arc<SharedCatalog>,
    threads: Threads,
    _lock: Box<dyn Any + Send + Sync>,
}

impl Journal {
    /// Opens a journal, or makes one where there is none, and starts its threads. Everything that it gives to read is durable.
    /// `on_sync` is told on the writer's thread how long each write with its sync took.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is found before anything is changed.
    pub fn open(
        storage: Arc<dyn Storage>,
        options: Options,
        on_sync: OnSync,
    ) -> Result<(Self, OpeningReport), OpenError> {
        let lock = storage.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked,
            _ => OpenError::io("locking", "lock", error),
        })?;
        let (log, opened) = Log::open(storage, options, OpeningDraw::random(), system_us())?;
        let shared = Arc::clone(log.catalog());
        let threads = Threads::start(log, options.limits.group_bytes(), on_sync);
        let threads = threads.map_err(|error| OpenError::io("starting a thread for", ".", error))?;
        Ok((Self { shared, threads, _lock: lock }, opened))
    }

    /// For sessions.
    #[must_use]
    pub fn appender(&self) -> Appender {
        self.threads.appender()
    }

    /// For the drain and whoever asks how it stands.
    #[must_use]
    pub fn catalog(&self) -> &Arc<SharedCatalog> {
        &self.shared
    }

    /// Takes no entry any more. Those that were taken in are written, unless there is no room for them: their tickets say so.
    pub fn stop_taking(&self) {
        self.threads.stop_taking();
    }

    /// Ends taking entries in, writes and syncs what was taken in, and ends the threads. Without room on the disk, entries that
    /// were taken in may be left unwritten; their tickets say so.
    ///
    /// # Errors
    /// When the journal failed.
    pub fn close(self) -> Result<(), Poisoned> {
        let Self { shared, threads, _lock } = self;
        drop(threads);
        let poisoned = shared.lock().poisoned.clone();
        poisoned.map_or(Ok(()), Err)
    }
}

impl Log {
    /// Opens a journal without threads or lock: the caller does the chores, and commits group by group.
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
        let opened = OpeningReport { new_id: trust == Released::Nothing, ..found.opened };
        let catalog = Catalog::new(options.limits, options.recovery, found);
        let shared = Arc::new(SharedCatalog::new(storage, identity, catalog));
        while shared.lock().spares.is_empty() && shared.chore(now_us) {}
        let mut log = Self::new(Arc::clone(&shared), draw.tag);
        // The first group of this opening proves where the journal ended before it. Without room it comes later.
        if let LogOutcome::NoRoom = log.commit(&mut Group::default())? {
            shared.chore(now_us);
        }
        Ok((log, opened))
    }
}

/// Reads who the journal is; makes it somebody where there is nothing yet.
fn identify(
    storage: &dyn Storage,
    names: &[String],
    recovery: RecoveryMode,
    draw: OpeningDraw,
) -> Result<(Identity, Released), OpenError> {
    let beside_segments = names.iter().any(|name| segment::number(name).is_some());
    let origin = match Identity::read(storage, names) {
        Ok(Some(identity)) => return Ok((identity, Released::AsNoted)),
        Ok(None) if !beside_segments => Origin(draw.id.to_bytes()),
        Ok(None) if recovery == RecoveryMode::Strict => return Err(identity::missing()),
        Err(error @ OpenError::Damaged { .. }) if recovery == RecoveryMode::Strict => return Err(error),
        // The segments say where they come from; under a new id everything is drained again.
        Ok(None) | Err(OpenError::Damaged { .. }) => origin_of(storage, names)?.unwrap_or(Origin(draw.id.to_bytes())),
        Err(error) => return Err(error),
    };
    let identity = Identity { origin, id: draw.id };
    identity.write(storage).map_err(|error| OpenError::io("writing", identity::FILE, error))?;
    Ok((identity, Released::Nothing))
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
