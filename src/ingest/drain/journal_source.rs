//! The journal as a lane's feed: reads behind the writer, always from the file, and releases what is committed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::builder::{BatchBuilder, Frame};
use super::clock::{self, FIRST_VERSION_US};
use super::feed::{Feed, FeedError, Load};
use super::lane_of;
use super::shared::Draining;
use crate::health::Reason;
use crate::store::{Checkpoint, Committed, Lane};
use odograph_journal::WallClock;
use odograph_journal::{Entry, EntryKind, HistoryMatch, HistoryMismatch, NewEntry, ReadError, Reader};
use odograph_journal::{Mark, Position};

/// One lane's view of the journal.
pub struct Tail {
    draining: Arc<Draining>,
    lane: Lane,
    reader: Reader,
    /// Where the database stands.
    cursor: Checkpoint,
    /// Records before are settled; those behind it are counted as waiting.
    settled: Position,
    /// Receive time of the first entry of the batch.
    oldest_us: Option<i64>,
    looked_at_clock: Option<Instant>,
}

impl Tail {
    /// Lane `number`. Until the database is asked it stands where the journal was released.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn new(draining: Arc<Draining>, number: u16) -> Result<Self, ReadError> {
        let lane = Lane { journal: draining.catalog.id(), number, lanes: draining.lanes() };
        let settled = draining.catalog.status().released;
        // For the age of the oldest entry, should the database be away for long.
        let oldest_us = draining.catalog.reader(settled)?.next()?.map(|Entry { entry, .. }| entry.received_at_us);
        draining.waits(number, oldest_us);
        let reader = draining.catalog.reader(settled)?;
        Ok(Self {
            draining,
            lane,
            reader,
            cursor: Checkpoint::default(),
            settled,
            oldest_us: None,
            looked_at_clock: None,
        })
    }

    fn is_ours(&self, entry: &Entry<'_>) -> bool {
        self.lane.lanes == 1 || lane_of(entry.entry.imei, self.lane.lanes) == self.lane.number
    }

    /// Where reading begins for a checkpoint; `None` where the journal is not the one that it was made from.
    fn place(&self, at: Mark) -> Result<Result<Position, HistoryMismatch>, FeedError> {
        let history = self.draining.catalog.history();
        let place = match history.compare(at) {
            HistoryMatch::Agrees => at.position,
            HistoryMatch::Gap { .. } => {
                let begin = history.begin().position;
                self.draining.gap(self.lane.journal, at.position, begin);
                begin
            }
            HistoryMatch::Reidentify(why) => return Ok(Err(why)),
        };
        match self.draining.catalog.reader(place) {
            Err(ReadError::NoEntry { .. }) => Ok(Err(HistoryMismatch::OtherHistory)),
            Err(wrong) => Err(wrong.into()),
            Ok(_) => Ok(Ok(place)),
        }
    }

    fn go_to(&mut self, place: Position, at: Checkpoint, builder: &mut BatchBuilder) -> Result<(), FeedError> {
        if place < self.settled {
            self.count_again(place)?;
            self.settled = place;
        }
        let catalog = Arc::clone(&self.draining.catalog);
        let (begin, newest) = (catalog.status().begin, at.latest);
        let needed = newest.min(self.settled).max(begin).min(place);
        let warm = catalog.segment_before(Position(place.0.saturating_sub(WARM_BYTES))).max(begin);
        let stored = match self.read_up(warm.min(needed), place, newest, builder) {
            // What was only to be remembered may be given away at any time.
            Err(ReadError::NotKept { .. }) => self.read_up(needed, place, newest, builder)?,
            read => read?,
        };
        builder.remembered();
        self.draining.tally.committed(0, stored, Default::default());
        self.settled = place;
        (self.cursor, self.reader, self.oldest_us) = (at, catalog.reader(place)?, None);
        self.draining.waits(self.lane.number, None);
        Ok(())
    }

    /// Reads from `from` to `place`, which is committed: the keys of recent records for the filter, and newest positions from
    /// `newest` on, which are not written. Gives the number of records that were counted as waiting.
    fn read_up(
        &self,
        from: Position,
        place: Position,
        newest: Position,
        builder: &mut BatchBuilder,
    ) -> Result<u64, ReadError> {
        let (mut reader, mut stored) = (self.draining.catalog.reader(from)?, 0);
        while reader.cursor().position < place
            && let Some(entry) = reader.next()?
        {
            if !self.is_ours(&entry) {
                continue;
            }
            let Entry { position, entry } = believed(entry, self.draining.wall);
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

    /// Records from `place` on that were settled already: the database lost them, and they wait again.
    fn count_again(&self, place: Position) -> Result<(), FeedError> {
        let (mut reader, mut lost) = (self.draining.catalog.reader(place)?, 0);
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
                "the database is behind what it had taken; this part of the journal is drained again"
            );
        }
        self.draining.tally.recovered(lost);
        Ok(())
    }
}

impl Feed for Tail {
    const LASTS: bool = true;

    fn lane(&self) -> Lane {
        Lane { journal: self.draining.catalog.id(), ..self.lane }
    }

    fn begin(&mut self, lane: Lane, at: Checkpoint, builder: &mut BatchBuilder) -> Result<Option<()>, FeedError> {
        if lane != self.lane() {
            // Another lane gave the journal a new id since.
            return Ok(None);
        }
        self.lane = lane;
        let place = match self.place(at.mark)? {
            Ok(place) => place,
            Err(why) => {
                self.draining.rename(self.lane.journal, why)?;
                return Ok(None);
            }
        };
        // Before anything else: what is not committed must not be given away while it is read.
        let begin = self.draining.catalog.status().begin;
        let done = place.min(at.latest.max(begin));
        self.draining.begins(lane.number, done)?;
        match self.go_to(place, at, builder) {
            // It was given away before that was known: there is a gap now.
            Err(FeedError::Read(ReadError::NotKept { .. })) => Ok(None),
            gone => {
                gone?;
                self.draining.stands(lane.number, done)?;
                Ok(Some(()))
            }
        }
    }

    fn is_current(&self) -> bool {
        self.draining.catalog.id() == self.lane.journal
    }

    fn fill(&mut self, builder: &mut BatchBuilder, load: &mut Load) -> Result<(), FeedError> {
        let (had, lane, wall) = (load.frames, self.lane, self.draining.wall);
        while !load.is_full() {
            let Some(entry) = self.reader.next()? else { break };
            let Entry { position, entry } = believed(entry, wall);
            if lane.lanes > 1 && lane_of(entry.imei, lane.lanes) != lane.number {
                continue;
            }
            if load.frames == 0 {
                self.oldest_us = Some(entry.received_at_us);
            }
            load.add(&entry);
            builder.entry(position, &entry);
        }
        if had == 0 {
            self.draining.waits(lane.number, self.oldest_us);
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
        // Behind a gap reading begins later than the checkpoint, and nothing may have come yet.
        if to.position == self.settled { (self.cursor.mark, self.cursor.mark) } else { (self.cursor.mark, to) }
    }

    fn stands(&self) -> Checkpoint {
        self.cursor
    }

    fn confirmed(&mut self) -> Result<(), FeedError> {
        // Another lane may have taken it back, for a loss that was not this one's.
        Ok(self.draining.stands(self.lane.number, self.cursor.mark.position.min(self.cursor.latest))?)
    }

    fn committed(&mut self, at: Checkpoint, _: &Committed) -> Result<(), FeedError> {
        (self.cursor, self.settled, self.oldest_us) = (at, at.mark.position, None);
        self.draining.waits(self.lane.number, None);
        Ok(self.draining.done(self.lane.number, at.mark.position.min(at.latest))?)
    }

    fn abandon(&mut self) -> Result<(), FeedError> {
        self.reader = self.draining.catalog.reader(self.settled)?;
        Ok(())
    }

    fn set_aside(&mut self) -> bool {
        // The checkpoint cannot pass it.
        false
    }

    fn is_pressed(&self, to: Mark) -> bool {
        to.position.0.saturating_sub(self.cursor.latest.0) > self.draining.catalog.max_bytes() / PRESSED
    }

    fn clock_is_wrong(&mut self) -> bool {
        if self.looked_at_clock.is_some_and(|at| at.elapsed() < CLOCK_EVERY) {
            return self.draining.health.holds(Reason::Clock);
        }
        self.looked_at_clock = Some(Instant::now());
        let newest_us = self.draining.catalog.status().newest_us.filter(|_| !self.draining.accept_clock);
        let wrong = clock::judge((self.draining.wall)(), newest_us);
        let held = self.draining.health.holds(Reason::Clock);
        self.draining.health.set(Reason::Clock, self.lane.number, wrong.is_some());
        if let (Some(wrong), false) = (wrong, held) {
            tracing::error!(
                ?wrong,
                "this machine's clock cannot be right; nothing is written to the database until it is. Where the journal is what is wrong, `odograph serve --accept-clock` goes on"
            );
        }
        wrong.is_some()
    }
}

/// An entry that a clock received which cannot have been right: when it is read is the best that is known.
#[must_use]
pub fn believed(mut entry: Entry<'_>, wall: WallClock) -> Entry<'_> {
    if entry.entry.received_at_us < FIRST_VERSION_US {
        entry.entry.received_at_us = wall();
    }
    entry
}

/// What trackers send again after a restart came in shortly before it.
const WARM_BYTES: u64 = 32 << 20;
/// Part of the journal that newest positions may hold back.
const PRESSED: u64 = 8;
const CLOCK_EVERY: Duration = Duration::from_secs(1);
