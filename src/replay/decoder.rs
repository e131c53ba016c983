//! From journal entries and quarantined bytes to what today's program makes of them: the rows that a drain would build.

use teltonika_codecs::{AvlData, Message, MessageCodec};
use uuid::Uuid;

use crate::ingest::drain::{
    BuiltRow, DuplicateFilter, Familiarity, FilterSizes, Frame, TimeWindow, open_frame, stored_message,
};
use crate::store::{QuarantineReason, ReplayBatch};
use odograph_journal::{EntryKind, NewEntry};
use odograph_journal::{JournalId, Position};

/// Gathers what entries hold, until it is written.
pub struct Decoder {
    window: TimeWindow,
    again: ReplayBatch,
    refused: RefusedRecords,
    /// Where nothing is written, so that the table does not tell: what was looked at just before.
    seen: Option<DuplicateFilter>,
    repeats: u64,
}

/// What is no row by today's program and settings, in records; a frame that cannot be read counts those that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedRecords {
    /// Those of frames that cannot be read.
    pub undecodable: u64,
    /// Records outside the time window.
    pub time_window: u64,
    /// Frames that cannot be read; not records.
    pub frames: u64,
}

impl RefusedRecords {
    pub(super) fn add(&mut self, other: Self) {
        self.undecodable += other.undecodable;
        self.time_window += other.time_window;
        self.frames += other.frames;
    }
}

impl Decoder {
    /// For entries of one journal.
    #[must_use]
    pub fn new(journal: JournalId, window: TimeWindow) -> Self {
        Self { window, again: ReplayBatch::new(journal), refused: RefusedRecords::default(), seen: None, repeats: 0 }
    }

    /// The same, leaving out what a device sends again shortly after: where nothing is written it would count twice.
    #[must_use]
    pub fn without_repeats(self) -> Self {
        Self { seen: Some(DuplicateFilter::new(FilterSizes::default())), ..self }
    }

    /// Adds an entry of the journal.
    pub fn entry(&mut self, position: Position, source: Uuid, entry: &NewEntry<'_>) {
        let read = match entry.kind {
            EntryKind::Message => self.message(position, source, entry),
            EntryKind::Frame => {
                let NewEntry { imei, received_at_us, records, bytes: data, .. } = *entry;
                let frame = Frame { imei, received_at_us, position, data, records };
                open_frame(&frame).ok().map(|avl| self.rows(&frame, &avl, 0))
            }
            EntryKind::Undecodable => self.whole(position, source, entry),
        };
        match read {
            Some(true) => self.again.add_whole_frame(entry.imei, entry.bytes),
            // What is in quarantine may be all that has the record that is refused.
            Some(false) => {}
            None => {
                self.refused.frames += 1;
                self.refused.undecodable += u64::from(entry.records);
            }
        }
    }

    /// Adds a whole frame that is in quarantine; says why it stays there, if so.
    pub fn quarantined_frame(
        &mut self,
        position: Position,
        source: Uuid,
        entry: &NewEntry<'_>,
    ) -> Option<QuarantineReason> {
        let before = self.refused;
        self.entry(position, source, &NewEntry { kind: EntryKind::Undecodable, ..*entry });
        match self.refused {
            now if now.frames > before.frames => Some(QuarantineReason::Undecodable),
            now if now.time_window > before.time_window => Some(QuarantineReason::TimeWindow),
            _ => None,
        }
    }

    /// Adds one record that is in quarantine, as it came on the wire; says why it stays there, if so.
    pub fn quarantined_record(
        &mut self,
        position: Position,
        (codec, index): (u8, u8),
        entry: &NewEntry<'_>,
    ) -> Option<QuarantineReason> {
        let data = alone(codec, entry.bytes);
        let frame = Frame { imei: entry.imei, received_at_us: entry.received_at_us, position, data: &data, records: 1 };
        let Ok(avl) = open_frame(&frame) else {
            self.refused.undecodable += 1;
            return Some(QuarantineReason::Undecodable);
        };
        (!self.rows(&frame, &avl, index)).then_some(QuarantineReason::TimeWindow)
    }

    /// Whether all of it was taken; `None` where it cannot be read.
    fn whole(&mut self, position: Position, source: Uuid, entry: &NewEntry<'_>) -> Option<bool> {
        if entry.bytes.first().is_some_and(|id| MessageCodec::from_id(*id).is_some()) {
            return self.message(position, source, entry);
        }
        let NewEntry { imei, received_at_us, bytes: data, .. } = *entry;
        let avl = AvlData::open(data).ok()?;
        Some(self.rows(&Frame { imei, received_at_us, position, data, records: avl.count() }, &avl, 0))
    }

    fn message(&mut self, position: Position, source: Uuid, entry: &NewEntry<'_>) -> Option<bool> {
        let message = Message::open(entry.bytes).ok()?;
        self.again.messages.extend(message.map(|message| stored_message(position, source, entry, &message)));
        Some(true)
    }

    /// Whether all records are rows.
    fn rows(&mut self, frame: &Frame<'_>, avl: &AvlData<'_>, first: u8) -> bool {
        let (mut all, mut seen) = (true, self.seen.as_mut().map(|seen| seen.device(frame.imei)));
        for (index, record) in (first..=u8::MAX).zip(avl.records()) {
            if self.window.refuses(&record, frame.received_at_us).is_some() {
                self.refused.time_window += 1;
                all = false;
                continue;
            }
            let mut built = BuiltRow::new(frame.imei, frame.received_at_us, avl.codec(), &record);
            if seen.as_mut().is_some_and(|seen| {
                seen.check_and_remember(built.row.ts_ms, built.row.fingerprint) == Familiarity::Stored
            }) {
                self.repeats += 1;
                continue;
            }
            (built.row.frame, built.row.record_index) = (frame.position, index);
            self.again.rows.push(&built.row, record.wire(), |io| built.write_io(&record, io));
        }
        all
    }

    /// Whether there is enough for a transaction.
    #[must_use]
    pub fn is_full(&self, rows: usize) -> bool {
        let ReplayBatch { rows: built, messages, .. } = &self.again;
        built.len() >= rows || built.bytes() >= BYTES_MAX || messages.len() >= MESSAGES_MAX
    }

    /// Whether there is nothing to write and nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.again.is_empty() && self.refused == RefusedRecords::default() && self.repeats == 0
    }

    /// What was gathered, for the store.
    pub fn again(&mut self) -> &mut ReplayBatch {
        &mut self.again
    }

    /// Begins anew; gives what was refused, and how many records were left out.
    pub fn take_rest(&mut self) -> (RefusedRecords, u64) {
        self.again.clear();
        (std::mem::take(&mut self.refused), std::mem::take(&mut self.repeats))
    }
}

/// A record as a data field of its own, in which it is what it was in a larger one.
#[must_use]
pub fn alone(codec: u8, record: &[u8]) -> Vec<u8> {
    [&[codec, 1], record, &[1]].concat()
}

/// A batch in memory, beside its rows.
const BYTES_MAX: usize = 8 << 20;
const MESSAGES_MAX: usize = 1_000;
