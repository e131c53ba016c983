//! From frames to a batch: rows sorted by what is known of them, newest positions, and what goes into quarantine.
//!
//! A record that the filter knows as stored is left out of the batch, so what the filter knows must be true: a batch ends
//! either as committed, with the store's proof, or abandoned, and then nothing counts as stored any more.

use std::time::Duration;

use teltonika_codecs::{AvlData, Imei, Record};

use super::newest::NewestPositions;
use super::rows::{BuiltRow, NotAsAccepted};
use super::seen::{Seen, SeenKeys};
use crate::checkpoint::Position;
use crate::store::{Batch, Committed, QuarantineReason, Quarantined};

/// A frame that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The device that sent it.
    pub imei: Imei,
    /// Receive time, microseconds since 1970-01-01 UTC.
    pub received_at_us: i64,
    /// Its place in the journal.
    pub position: Position,
    /// The data field, codec id to second count.
    pub data: &'a [u8],
    /// Records in it, as the receipt says.
    pub records: u8,
}

/// Device times that are believed, around the receive time: a stray date would make a chunk of its own.
#[derive(Clone, Copy, Debug)]
pub struct TimeWindow {
    /// How far a record may lie behind.
    pub past: Duration,
    /// How far a record may lie ahead.
    pub future: Duration,
}

/// Builds one batch after the other.
pub struct BatchBuilder {
    seen: SeenKeys,
    newest: NewestPositions,
    window: TimeWindow,
    batch: Batch,
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(window: TimeWindow, seen: SeenKeys) -> Self {
        Self { seen, newest: NewestPositions::default(), window, batch: Batch::default() }
    }

    /// Adds the records of a frame: all or none. Gives the device time of its newest record, milliseconds.
    ///
    /// # Errors
    /// When the data field cannot be opened, or does not hold as many records as the receipt will say: the session
    /// checked both before.
    pub fn frame(&mut self, frame: &Frame<'_>) -> Result<Option<i64>, NotAsAccepted> {
        let avl = AvlData::open(frame.data)?;
        if avl.count() != frame.records {
            return Err(NotAsAccepted::Count);
        }
        let Self { seen, newest, window, batch } = self;
        let mut seen = seen.device(frame.imei);
        let (mut newest_ms, mut newest_counted) = (None, None);
        for (index, record) in (0..=u8::MAX).zip(avl.records()) {
            let mut built = BuiltRow::new(frame.imei, frame.received_at_us, avl.codec(), &record);
            (built.row.frame, built.row.record_index) = (frame.position, index);
            let (row, at) = (&built.row, (built.row.ts_ms, built.row.fingerprint));
            if let Some(why) = window.refuses(&record, frame.received_at_us) {
                batch.quarantined.push(Quarantined::record(row, QuarantineReason::TimeWindow, why, record.wire()));
                continue;
            }
            let rows = match seen.see(row.ts_ms, row.fingerprint) {
                Seen::Stored => {
                    batch.known_stored += 1;
                    continue;
                }
                Seen::Perhaps => &mut batch.perhaps_stored,
                Seen::New => &mut batch.new,
            };
            rows.push(row, record.wire(), |io| built.write_io(&record, io));
            newest_ms = newest_ms.max(Some(row.ts_ms));
            // One look-up for a frame that has its newest record first. A record without a fix hides none behind it.
            if newest_counted < Some(at) && newest.see(row, rows.last_io()) {
                newest_counted = Some(at);
            }
        }
        Ok(newest_ms)
    }

    /// Adds the newest positions to the batch, for the store to write them.
    pub fn add_newest(&mut self) {
        self.batch.newest.clear();
        self.newest.fill(&mut self.batch.newest);
    }

    /// Whether there are newest positions that are not written.
    #[must_use]
    pub fn has_newest(&self) -> bool {
        !self.newest.is_empty()
    }

    /// The batch, for the store.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Begins the next batch after this one was committed.
    pub fn committed(&mut self, proof: &Committed) {
        self.newest.committed(!self.batch.newest.is_empty(), proof.refused());
        self.batch.clear();
    }

    /// Begins anew: the batch will not be committed as it is.
    pub fn abandon(&mut self) {
        self.seen.doubt();
        self.newest.abandon();
        self.batch.clear();
    }
}

impl TimeWindow {
    fn refuses(&self, record: &Record<'_>, received_at_us: i64) -> Option<&'static str> {
        let Some(ts_ms) = record.calendar_ms() else { return Some("no calendar holds it") };
        let ahead_us = i128::from(ts_ms) * 1000 - i128::from(received_at_us);
        if ahead_us > self.future.as_micros().cast_signed() {
            Some("ahead of the receive time")
        } else if -ahead_us > self.past.as_micros().cast_signed() {
            Some("behind the receive time")
        } else {
            None
        }
    }
}
