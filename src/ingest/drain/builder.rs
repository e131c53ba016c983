//! From frames to a batch: rows sorted by what the filter knows of them, latest positions, and what goes to quarantine.
//!
//! A record that the filter knows as stored is left out of the batch, so the filter must be right: a batch ends either
//! committed, with the store's proof, or abandoned, and then nothing counts as stored any more.

use std::time::Duration;

use teltonika_codecs::{AvlData, Imei, Message, MessageCodec, Record, Rejection};
use uuid::Uuid;

use super::duplicates::{DuplicateFilter, Familiarity};
use super::latest::{LatestPositions, is_ahead};
use super::row::{AcceptedFrameError, BuiltRow};
use crate::log_limit::LogLimit;
use crate::store::{Batch, Committed, Message as StoredMessage, QuarantineReason, Quarantined};
use odograph_journal::Position;
use odograph_journal::{EntryKind, NewEntry};

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

/// Plausible device times, around the receive time: a stray date would create a chunk of its own.
#[derive(Clone, Copy, Debug)]
pub struct TimeWindow {
    /// How far a record may be behind.
    pub past: Duration,
    /// How far a record may be ahead.
    pub future: Duration,
}

/// Builds one batch after the other.
pub struct BatchBuilder {
    filter: DuplicateFilter,
    latest: LatestPositions,
    window: TimeWindow,
    batch: Batch,
    /// Records in undecodable frames of the batch, by the count that the frames name.
    undecodable: u64,
    /// Device time of each frame's newest record, milliseconds.
    newest_ms: Vec<i64>,
    /// Records of the batch whose device's clock was ahead.
    ahead: u64,
    ahead_limit: LogLimit,
    /// Reused for the latest positions of remembered frames.
    io: String,
    log_limit: LogLimit,
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(window: TimeWindow, filter: DuplicateFilter) -> Self {
        let latest = LatestPositions::default();
        Self {
            filter,
            latest,
            window,
            batch: Batch::default(),
            undecodable: 0,
            newest_ms: Vec::new(),
            ahead: 0,
            ahead_limit: LogLimit::default(),
            io: String::new(),
            log_limit: LogLimit::default(),
        }
    }

    /// Adds an entry of any kind. `source` names the content of the journal up to it, for messages.
    pub fn entry(&mut self, position: Position, source: Uuid, entry: &NewEntry<'_>) {
        match entry.kind {
            EntryKind::Frame => {
                let NewEntry { imei, received_at_us, records, bytes, .. } = *entry;
                // The session opened the same bytes, perhaps in another version of this program.
                if let Err(error) = self.frame(&Frame { imei, received_at_us, position, data: bytes, records }) {
                    if let Some(left_out) = self.log_limit.allow() {
                        tracing::error!(
                            %position, error = %error, left_out,
                            "cannot decode an accepted frame; it goes to quarantine"
                        );
                    }
                    self.whole_frame(position, entry, error.to_string());
                }
            }
            EntryKind::Undecodable => {
                let detail = undecodable(entry.bytes).map_or_else(
                    // An earlier version refused the frame.
                    || "can be decoded by this version".to_owned(),
                    |error| error.to_string(),
                );
                self.whole_frame(position, entry, detail);
            }
            EntryKind::Message => self.message(position, source, entry),
        }
    }

    /// Adds the records of a frame: all or none.
    ///
    /// # Errors
    /// When the data field cannot be opened, or does not hold as many records as the receipt said.
    pub fn frame(&mut self, frame: &Frame<'_>) -> Result<(), AcceptedFrameError> {
        let (avl, ahead_before) = (open(frame)?, self.ahead);
        let Self { filter, latest, window, batch, ahead, .. } = self;
        let mut filter = filter.device(frame.imei);
        let (mut newest_ms, mut newest_counted) = (None, None);
        for (index, record) in (0..=u8::MAX).zip(avl.records()) {
            let mut built = BuiltRow::new(frame.imei, frame.received_at_us, avl.codec(), &record);
            (built.row.frame, built.row.record_index) = (frame.position, index);
            let (row, at) = (&built.row, (built.row.ts_ms, built.row.fingerprint));
            if let Some(detail) = window.refuses(&record, frame.received_at_us) {
                batch.quarantined.push(Quarantined::record(row, QuarantineReason::TimeWindow, detail, record.wire()));
                continue;
            }
            let rows = match filter.check_and_remember(row.ts_ms, row.fingerprint) {
                Familiarity::Stored => {
                    batch.known_stored += 1;
                    continue;
                }
                Familiarity::Perhaps => &mut batch.perhaps_stored,
                Familiarity::New => &mut batch.new,
            };
            *ahead += u64::from(is_ahead(row));
            rows.push(row, record.wire(), |io| built.write_io(&record, io));
            newest_ms = newest_ms.max(Some(row.ts_ms));
            // One look-up for a frame with its newest record first. A record without a fix hides none after it.
            if newest_counted < Some(at) && latest.consider(row, rows.last_io()) {
                newest_counted = Some(at);
            }
        }
        self.newest_ms.extend(newest_ms);
        if self.ahead > ahead_before
            && let Some(left_out) = self.ahead_limit.allow()
        {
            tracing::warn!(
                imei = %frame.imei, newest_ms, received_at_us = frame.received_at_us, left_out,
                "the clock of this tracker is ahead: its positions are stored, and do not count as its latest one"
            );
        }
        Ok(())
    }

    /// Records of the batch whose device's clock was ahead.
    pub(super) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// Learns a committed frame: its keys are stored. If `newest` is set, its positions may be later than the written ones.
    pub fn remember(&mut self, frame: &Frame<'_>, newest: bool) {
        let Ok(avl) = open(frame) else { return };
        let mut filter = self.filter.device(frame.imei);
        for record in avl.records().filter(|record| self.window.refuses(record, frame.received_at_us).is_none()) {
            let built = BuiltRow::new(frame.imei, frame.received_at_us, avl.codec(), &record);
            filter.check_and_remember(built.row.ts_ms, built.row.fingerprint);
            if newest {
                self.io.clear();
                built.write_io(&record, &mut self.io);
                self.latest.consider(&built.row, &self.io);
            }
        }
    }

    /// All committed frames were learned.
    pub fn remembered(&mut self) {
        self.latest.committed(false, &[]);
    }

    /// Adds the latest positions to the batch, for the store to write.
    pub fn add_latest(&mut self) {
        self.batch.latest.clear();
        self.latest.fill(&mut self.batch.latest);
    }

    /// Whether there are unwritten latest positions.
    #[must_use]
    pub fn has_latest(&self) -> bool {
        !self.latest.is_empty()
    }

    /// Whether the batch writes latest positions.
    #[must_use]
    pub fn writes_latest(&self) -> bool {
        !self.batch.latest.is_empty()
    }

    /// Records of the batch that go to quarantine, by [`QuarantineReason`].
    #[must_use]
    pub fn quarantined(&self) -> [u64; QuarantineReason::ALL.len()] {
        let mut counts = [0; QuarantineReason::ALL.len()];
        for record in self.batch.quarantined.iter().filter(|record| record.record_index.is_some()) {
            counts[record.reason as usize] += 1;
        }
        counts[QuarantineReason::Undecodable as usize] += self.undecodable;
        counts
    }

    /// Device time of the newest record of each frame of the batch that brought any, milliseconds.
    pub fn newest_ms(&self) -> impl Iterator<Item = i64> {
        self.newest_ms.iter().copied()
    }

    /// The batch, for the store.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Starts the next batch after a commit.
    pub fn committed(&mut self, proof: &Committed) {
        self.latest.committed(!self.batch.latest.is_empty(), proof.refused());
        self.clear();
    }

    /// Drops the batch, because it will not be committed as it is.
    pub fn abandon(&mut self) {
        self.filter.distrust();
        self.latest.abandon();
        self.clear();
    }

    fn clear(&mut self) {
        self.batch.clear();
        self.newest_ms.clear();
        self.ahead = 0;
        self.undecodable = 0;
    }

    fn whole_frame(&mut self, frame: Position, entry: &NewEntry<'_>, detail: String) {
        self.undecodable += u64::from(entry.records);
        self.batch.quarantined.push(Quarantined {
            imei: entry.imei,
            reason: QuarantineReason::Undecodable,
            detail,
            received_at_us: entry.received_at_us,
            frame,
            record_index: None,
            codec: entry.bytes.first().copied().unwrap_or_default(),
            bytes: entry.bytes.to_vec(),
        });
    }

    fn message(&mut self, frame: Position, source: Uuid, entry: &NewEntry<'_>) {
        match Message::open(entry.bytes) {
            Ok(Some(message)) => self.batch.messages.push(stored(frame, source, entry, &message)),
            // One without content is a ping, and is never handed over.
            Ok(None) => {}
            Err(error) => self.whole_frame(frame, entry, error.to_string()),
        }
    }
}

/// Opens a frame that was accepted.
///
/// # Errors
/// When it does not hold as many records as the receipt said, or cannot be opened.
pub fn open<'a>(frame: &Frame<'a>) -> Result<AvlData<'a>, AcceptedFrameError> {
    let avl = AvlData::open(frame.data)?;
    if avl.count() == frame.records { Ok(avl) } else { Err(AcceptedFrameError::Count) }
}

/// A message as it is stored.
#[must_use]
pub fn stored(frame: Position, source: Uuid, entry: &NewEntry<'_>, message: &Message<'_>) -> StoredMessage {
    StoredMessage {
        imei: entry.imei,
        received_at_us: entry.received_at_us,
        source,
        frame,
        codec: message.codec.id(),
        message_type: message.kind,
        device_time_ms: message.timestamp_s.map(|seconds| i64::from(seconds) * 1_000),
        device_imei: message.imei,
        bytes: message.payload.to_vec(),
        // PostgreSQL text cannot hold a zero.
        text: message.text().filter(|text| !text.contains('\0')).map(str::to_owned),
    }
}

/// Why a data field cannot be decoded.
fn undecodable(data: &[u8]) -> Option<Rejection> {
    match data.first().and_then(|id| MessageCodec::from_id(*id)) {
        Some(_) => Message::open(data).err(),
        None => AvlData::open(data).err(),
    }
}

impl TimeWindow {
    /// Why a record received at this time is implausible, if it is.
    #[must_use]
    pub fn refuses(&self, record: &Record<'_>, received_at_us: i64) -> Option<&'static str> {
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
