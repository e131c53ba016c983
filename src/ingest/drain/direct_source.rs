//! The intake as a source, if there is no journal: entries are answered once they are committed. Until then their trackers keep
//! them.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::builder::BatchBuilder;
use super::clock::{self, ImplausibleClock};
use super::source::{BatchLoad, EntrySource, SourceError};
use crate::ingest::intake::QueuedFrame;
use crate::store::{Checkpoint, Committed, Lane};
use odograph_journal::{JournalId, Mark, Position};

/// The frames that a lane took from the intake. Its fence row belongs to this process alone, so its id is random.
pub struct DirectSource {
    lane: Lane,
    intake: mpsc::Receiver<QueuedFrame>,
    /// Uncommitted frames; the first ones are in the batch.
    frames: VecDeque<QueuedFrame>,
    in_batch: usize,
    /// Frames that the database refuses even alone. Others go on; these are retried from time to time.
    aside: VecDeque<QueuedFrame>,
    aside_tried: Instant,
    second_try: bool,
    cursor: Checkpoint,
    next: u64,
    tag: i64,
    ended: bool,
    accepts_clock: bool,
}

impl DirectSource {
    /// Reads one lane of the intake.
    #[must_use]
    pub fn new(lane: Lane, intake: mpsc::Receiver<QueuedFrame>) -> Self {
        Self {
            lane,
            intake,
            frames: VecDeque::new(),
            in_batch: 0,
            aside: VecDeque::new(),
            aside_tried: Instant::now(),
            second_try: false,
            cursor: Checkpoint::default(),
            next: 0,
            tag: fastrand::i64(1..),
            ended: false,
            accepts_clock: false,
        }
    }

    /// Believes this machine's clock, whatever it shows.
    #[must_use]
    pub fn accepting_clock(self) -> Self {
        Self { accepts_clock: true, ..self }
    }

    fn build(&mut self, builder: &mut BatchBuilder, load: &mut BatchLoad) {
        if let Some(frame) = self.frames.get(self.in_batch) {
            let (position, entry) = (Position(self.next), frame.entry());
            self.next += 1;
            load.add(&entry);
            builder.entry(position, self.lane.journal.uuid(), &entry);
            self.in_batch += 1;
        }
    }
}

impl EntrySource for DirectSource {
    const IS_REPLAYABLE: bool = false;

    fn lane(&self) -> Lane {
        self.lane
    }

    fn seek(&mut self, _: Lane, at: Checkpoint, _: &mut BatchBuilder) -> Result<Option<()>, SourceError> {
        self.cursor = at;
        self.next = self.next.max(at.mark.position.0);
        Ok(Some(()))
    }

    fn is_current(&self) -> bool {
        true
    }

    fn fill(&mut self, builder: &mut BatchBuilder, load: &mut BatchLoad) -> Result<(), SourceError> {
        if load.frames == 0
            && self.aside_tried.elapsed() >= ASIDE_EVERY
            && let Some(frame) = self.aside.pop_front()
        {
            self.frames.push_front(frame);
            self.second_try = true;
            self.build(builder, load);
            load.close();
        }
        while !load.is_full() {
            if self.in_batch == self.frames.len() {
                match self.intake.try_recv() {
                    Ok(next) => self.frames.push_back(next),
                    Err(mpsc::error::TryRecvError::Disconnected) => self.ended = true,
                    Err(mpsc::error::TryRecvError::Empty) => {}
                }
            }
            if self.in_batch == self.frames.len() {
                break;
            }
            self.build(builder, load);
        }
        Ok(())
    }

    async fn more(&mut self) {
        if self.ended {
            return;
        }
        match self.intake.recv().await {
            Some(next) => self.frames.push_back(next),
            None => self.ended = true,
        }
    }

    fn is_over(&self) -> bool {
        self.ended && self.frames.is_empty()
    }

    fn span(&self) -> (Mark, Mark) {
        let from = self.cursor.mark;
        if self.in_batch == 0 { (from, from) } else { (from, Mark { position: Position(self.next), tag: self.tag }) }
    }

    fn checkpoint(&self) -> Checkpoint {
        self.cursor
    }

    fn accepts_clock(&self) -> bool {
        self.accepts_clock
    }

    fn implausible_clock(&mut self) -> Option<ImplausibleClock> {
        clock::check(self.wall_us(), None)
    }

    fn committed(&mut self, at: Checkpoint, proof: &Committed) -> Result<(), SourceError> {
        self.cursor = at;
        for frame in self.frames.drain(..self.in_batch) {
            frame.settle(proof);
        }
        self.in_batch = 0;
        if std::mem::take(&mut self.second_try) {
            // The cause may be gone, so all others follow.
            self.frames.append(&mut self.aside);
        }
        Ok(())
    }

    fn abandon(&mut self) -> Result<(), SourceError> {
        if std::mem::take(&mut self.second_try) {
            self.set_aside();
        }
        self.in_batch = 0;
        Ok(())
    }

    fn set_aside(&mut self) -> bool {
        self.aside.extend(self.frames.pop_front());
        self.aside_tried = Instant::now();
        true
    }

    fn is_second_try(&self) -> bool {
        self.second_try
    }

    fn fenced(&mut self) {
        self.lane.journal = JournalId::random();
    }
}

/// Retry interval of a frame set aside; shorter than its tracker waits for an answer.
const ASIDE_EVERY: Duration = Duration::from_secs(10);
