//! The journal as a source: reads after the writer, always from the file, and releases what is committed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::builder::{BatchBuilder, Frame};
use super::clock::{self, FIRST_VERSION_US, ImplausibleClock};
use super::host_clock::ReceiveTimeShifts;
use super::progress::JournalProgress;
use super::source::{BatchLoad, EntrySource, SourceError};
use crate::lane::lane_of;
use crate::store::{Checkpoint, Committed, Lane};
use odograph_journal::WallClock;
use odograph_journal::{Entry, EntryKind, HistoryMatch, HistoryMismatch, NewEntry, ReadError, Reader};
use odograph_journal::{Mark, Position};

/// One lane's reader of the journal.
pub struct JournalSource {
    progress: Arc<JournalProgress>,
    lane: Lane,
    reader: Reader,
    /// The checkpoint of the lane.
    cursor: Checkpoint,
    /// Records before are counted as settled, later ones as waiting.
    settled: Position,
    /// Receive time of the first entry of the batch.
    oldest_us: Option<i64>,
    looked_at_clock: Option<Instant>,
    /// What was wrong with the clock then.
    implausible: Option<ImplausibleClock>,
}

impl JournalSource {
    /// Lane `number`. Until the database is asked, it starts where the journal was released.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn new(progress: Arc<JournalProgress>, number: u16) -> Result<Self, ReadError> {
        let lane = Lane { journal: progress.catalog.id(), number, lanes: progress.lanes() };
        let settled = progress.catalog.status().released;
        // For the age of the oldest entry, in case the database is down for long.
        let oldest_us =
            Reader::open(&progress.catalog, settled)?.next()?.map(|Entry { entry, .. }| entry.received_at_us);
        progress.lane_waits(number, oldest_us);
        let reader = Reader::open(&progress.catalog, settled)?;
        Ok(Self {
            progress,
            lane,
            reader,
            cursor: Checkpoint::default(),
            settled,
            oldest_us: None,
            looked_at_clock: None,
            implausible: None,
        })
    }

    fn is_ours(&self, entry: &Entry<'_>) -> bool {
        self.lane.lanes == 1 || lane_of(entry.entry.imei, self.lane.lanes) == self.lane.number
    }

    /// Where reading begins for a checkpoint, or why the journal does not match it.
    fn locate(&self, at: Mark) -> Result<Result<Position, HistoryMismatch>, SourceError> {
        let history = self.progress.catalog.history();
        let place = match history.compare(at, |position| Reader::tag_at(&self.progress.catalog, position))? {
            HistoryMatch::Agrees => at.position,
            HistoryMatch::Gap { .. } => {
                let begin = history.begin().position;
                self.progress.gap(self.lane.journal, at.position, begin);
                begin
            }
            HistoryMatch::Reidentify(mismatch) => return Ok(Err(mismatch)),
        };
        match Reader::open(&self.progress.catalog, place) {
            Err(ReadError::NoEntry { .. }) => Ok(Err(HistoryMismatch::OtherHistory)),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Ok(place)),
        }
    }

    /// Goes to `place`. Committed entries before it are read once more, for two reasons:
    ///
    /// ```text
    /// begin ─── warm ────────── latest written ─────────────── place ──► new entries
    ///           │               └─ latest positions not written ─┤
    ///           └─ keys of recent records, for the filter ───────┘
    /// ```
    ///
    /// The first may be gone from the journal; the second is held back until it is written.
    fn go_to(&mut self, place: Position, at: Checkpoint, builder: &mut BatchBuilder) -> Result<(), SourceError> {
        if place < self.settled {
            self.count_again(place)?;
            self.settled = place;
        }
        let catalog = Arc::clone(&self.progress.catalog);
        let (begin, newest) = (catalog.status().begin, at.latest);
        let needed = newest.min(self.settled).max(begin).min(place);
        let warm = catalog.segment_before(Position(place.0.saturating_sub(WARM_BYTES))).max(begin);
        let stored = match self.warm_up(warm.min(needed), place, newest, builder) {
            // Entries that were only to warm the filter may be removed at any time.
            Err(ReadError::NotKept { .. }) => self.warm_up(needed, place, newest, builder)?,
            read => read?,
        };
        builder.remembered();
        self.progress.tally.committed(0, stored, Default::default());
        self.settled = place;
        (self.cursor, self.reader, self.oldest_us) = (at, Reader::open(&catalog, place)?, None);
        self.progress.lane_waits(self.lane.number, None);
        Ok(())
    }

    /// Reads the committed entries from `from` to `place`: keys of recent records for the filter, and the unwritten latest
    /// positions from `newest` on. Returns the number of records that were counted as waiting.
    fn warm_up(
        &self,
        from: Position,
        place: Position,
        newest: Position,
        builder: &mut BatchBuilder,
    ) -> Result<u64, ReadError> {
        let (mut reader, mut stored) = (Reader::open(&self.progress.catalog, from)?, 0);
        let shifts = self.progress.host_clock().shifts();
        while reader.cursor().position < place
            && let Some(entry) = reader.next()?
        {
            if !self.is_ours(&entry) {
                continue;
            }
            let Entry { position, entry, .. } = received(entry, shifts.as_ref(), self.progress.wall);
            if position >= self.settled {
                stored += u64::from(entry.records);
            }
            if entry.kind == EntryKind::Frame {
                let NewEntry { imei, received_at_us, records, bytes: data, .. } = entry;
                builder.remember(&Frame { imei, received_at_us, position, data, records }, position >= newest);
            }
        }
        Ok(stored)
    }

    /// Counts settled records from `place` on as waiting again, because the database lost them.
    fn count_again(&self, place: Position) -> Result<(), SourceError> {
        let (mut reader, mut lost) = (Reader::open(&self.progress.catalog, place)?, 0);
        while reader.cursor().position < self.settled
            && let Some(entry) = reader.next()?
        {
            if self.is_ours(&entry) {
                lost += u64::from(entry.entry.records);
            }
        }
        if lost > 0 {
            tracing::warn!(
                records = lost,
                "the database lost committed records (was it restored?); this part of the journal is drained again"
            );
        }
        self.progress.tally.recovered(lost);
        Ok(())
    }
}

impl EntrySource for JournalSource {
    const IS_REPLAYABLE: bool = true;

    fn lane(&self) -> Lane {
        Lane { journal: self.progress.catalog.id(), ..self.lane }
    }

    fn seek(&mut self, lane: Lane, at: Checkpoint, builder: &mut BatchBuilder) -> Result<Option<()>, SourceError> {
        if lane != self.lane() {
            // Another lane gave the journal a new id meanwhile.
            return Ok(None);
        }
        self.lane = lane;
        let place = match self.locate(at.mark)? {
            Ok(place) => place,
            Err(mismatch) => {
                self.progress.rename(self.lane.journal, mismatch)?;
                return Ok(None);
            }
        };
        // First of all: uncommitted entries must not be removed while they are read.
        let begin = self.progress.catalog.status().begin;
        let done = place.min(at.latest.max(begin));
        self.progress.lane_starts(lane.number, done)?;
        match self.go_to(place, at, builder) {
            // It was removed before that was known: now there is a gap.
            Err(SourceError::Read(ReadError::NotKept { .. })) => Ok(None),
            gone => {
                gone?;
                self.progress.lane_reached(lane.number, done)?;
                Ok(Some(()))
            }
        }
    }

    fn is_current(&self) -> bool {
        self.progress.catalog.id() == self.lane.journal
    }

    fn fill(&mut self, builder: &mut BatchBuilder, load: &mut BatchLoad) -> Result<(), SourceError> {
        let (had, lane, wall) = (load.frames, self.lane, self.progress.wall);
        let shifts = self.progress.host_clock().shifts();
        while !load.is_full() {
            let Some(entry) = self.reader.next()? else { break };
            let Entry { position, tag, entry } = received(entry, shifts.as_ref(), wall);
            if lane.lanes > 1 && lane_of(entry.imei, lane.lanes) != lane.number {
                continue;
            }
            if load.frames == 0 {
                self.oldest_us = Some(entry.received_at_us);
            }
            load.add(&entry);
            builder.entry(position, self.progress.catalog.content_id(tag), &entry);
        }
        if had == 0 {
            self.progress.lane_waits(lane.number, self.oldest_us);
        }
        Ok(())
    }

    async fn more(&mut self) {
        pin!(self.reader.ready()).await;
    }

    fn is_over(&self) -> bool {
        !self.reader.is_ready()
    }

    fn span(&self) -> (Mark, Mark) {
        let to = self.reader.cursor();
        // After a gap, reading begins later than the checkpoint. As long as nothing was read, the checkpoint stays.
        if to.position == self.settled { (self.cursor.mark, self.cursor.mark) } else { (self.cursor.mark, to) }
    }

    fn checkpoint(&self) -> Checkpoint {
        self.cursor
    }

    fn checkpoint_confirmed(&mut self) -> Result<(), SourceError> {
        // Another lane may have taken the release back, for a loss of its own.
        Ok(self.progress.lane_reached(self.lane.number, self.cursor.mark.position.min(self.cursor.latest))?)
    }

    fn committed(&mut self, at: Checkpoint, _: &Committed) -> Result<(), SourceError> {
        (self.cursor, self.settled, self.oldest_us) = (at, at.mark.position, None);
        self.progress.lane_waits(self.lane.number, None);
        Ok(self.progress.lane_committed(self.lane.number, at.mark.position.min(at.latest))?)
    }

    fn abandon(&mut self) -> Result<(), SourceError> {
        self.reader = Reader::open(&self.progress.catalog, self.settled)?;
        Ok(())
    }

    fn set_aside(&mut self) -> bool {
        // The checkpoint cannot pass it.
        false
    }

    fn is_pressed(&self, to: Mark) -> bool {
        to.position.0.saturating_sub(self.cursor.latest.0) > self.progress.catalog.max_bytes() / PRESSED
    }

    fn wall_us(&self) -> i64 {
        (self.progress.wall)()
    }

    fn accepts_clock(&self) -> bool {
        self.progress.accept_clock
    }

    fn implausible_clock(&mut self) -> Option<ImplausibleClock> {
        let wall_us = (self.progress.wall)();
        let was_set = self.progress.host_clock().observe(wall_us, || self.progress.catalog.status().end);
        if was_set || self.looked_at_clock.is_none_or(|at| at.elapsed() >= CLOCK_EVERY) {
            self.looked_at_clock = Some(Instant::now());
            self.implausible = clock::check(wall_us, self.progress.catalog.status().newest_us);
        }
        self.implausible
    }

    fn clock_is_verified(&mut self, wall_us: i64, at: Instant) {
        self.progress.host_clock().verified(wall_us, at);
    }
}

/// The entry with the receive time of the right clock, as far as that is known.
fn received<'a>(mut entry: Entry<'a>, shifts: Option<&ReceiveTimeShifts>, wall: WallClock) -> Entry<'a> {
    if let Some(shifts) = shifts {
        entry.entry.received_at_us = shifts.corrected(entry.position, entry.entry.received_at_us);
    }
    with_plausible_receive_time(entry, wall)
}

/// Replaces a receive time earlier than the first version of this program with the time of reading, the best that is known.
#[must_use]
pub fn with_plausible_receive_time(mut entry: Entry<'_>, wall: WallClock) -> Entry<'_> {
    if entry.entry.received_at_us < FIRST_VERSION_US {
        entry.entry.received_at_us = wall();
    }
    entry
}

/// Trackers resend after a restart what came shortly before it.
const WARM_BYTES: u64 = 32 << 20;
/// The part of the journal that unwritten latest positions may hold back.
const PRESSED: u64 = 8;
const CLOCK_EVERY: Duration = Duration::from_secs(1);
