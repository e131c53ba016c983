//! From journal entries and quarantined bytes to what today's program makes of them: the rows that a drain would build.

use teltonika_codecs::{AvlCodec, AvlData, Imei, Message, MessageCodec};

use crate::checkpoint::{JournalId, Position};
use crate::drain::{BuiltRow, Frame, TimeWindow, open_frame, stored_message};
use crate::journal::{Kind, NewEntry};
use crate::store::Again;

/// Gathers what entries hold, until it is written.
pub struct Decoder {
    window: TimeWindow,
    again: Again,
    refused: Refused,
}

/// What is no row by today's program and settings, in records; a frame that cannot be read counts those that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Frames that cannot be read.
    pub undecodable: u64,
    /// Records outside the time window.
    pub time_window: u64,
}

impl Refused {
    pub(super) fn add(&mut self, other: Self) {
        self.undecodable += other.undecodable;
        self.time_window += other.time_window;
    }
}

impl Decoder {
    /// For entries of one journal.
    #[must_use]
    pub fn new(journal: JournalId, window: TimeWindow) -> Self {
        Self { window, again: Again::new(journal), refused: Refused::default() }
    }

    /// Adds an entry of the journal.
    pub fn entry(&mut self, position: Position, entry: &NewEntry<'_>) {
        let readable = match entry.kind {
            Kind::Message => self.message(position, entry),
            Kind::Frame => {
                let NewEntry { imei, received_at_us, records, bytes: data, .. } = *entry;
                let frame = Frame { imei, received_at_us, position, data, records };
                open_frame(&frame).map(|avl| self.records(&frame, &avl)).is_ok()
            }
            Kind::Undecodable => self.whole(position, entry),
        };
        self.settle(readable, entry);
    }

    /// Adds a whole frame of which nobody could say what it is.
    pub fn unknown(&mut self, position: Position, entry: &NewEntry<'_>) -> bool {
        let readable = self.whole(position, entry);
        self.settle(readable, entry);
        readable
    }

    /// Adds one record as it came on the wire; false where it is no row.
    pub fn record(&mut self, position: Position, index: u8, codec: u8, entry: &NewEntry<'_>) -> bool {
        // A frame of its own, for which records are what they are in a larger one.
        let data = [&[codec, 1], entry.bytes, &[1]].concat();
        let before = self.again.rows.len();
        let frame = Frame { imei: entry.imei, received_at_us: entry.received_at_us, position, data: &data, records: 1 };
        match open_frame(&frame) {
            Ok(avl) => self.rows(&frame, &avl, index),
            Err(_) => self.refused.undecodable += 1,
        }
        self.again.rows.len() > before
    }

    fn settle(&mut self, readable: bool, entry: &NewEntry<'_>) {
        if readable {
            self.again.readable(entry.imei, entry.bytes);
        } else {
            self.refused.undecodable += u64::from(entry.records);
        }
    }

    fn whole(&mut self, position: Position, entry: &NewEntry<'_>) -> bool {
        if entry.bytes.first().is_some_and(|id| MessageCodec::from_id(*id).is_some()) {
            return self.message(position, entry);
        }
        let NewEntry { imei, received_at_us, bytes: data, .. } = *entry;
        let Ok(avl) = AvlData::open(data) else { return false };
        self.records(&Frame { imei, received_at_us, position, data, records: avl.count() }, &avl);
        true
    }

    fn message(&mut self, position: Position, entry: &NewEntry<'_>) -> bool {
        match Message::open(entry.bytes) {
            Ok(message) => {
                self.again.messages.extend(message.map(|message| stored_message(position, entry, &message)));
                true
            }
            Err(_) => false,
        }
    }

    fn records(&mut self, frame: &Frame<'_>, avl: &AvlData<'_>) {
        self.rows(frame, avl, 0);
    }

    fn rows(&mut self, frame: &Frame<'_>, avl: &AvlData<'_>, first: u8) {
        for (index, record) in (first..=u8::MAX).zip(avl.records()) {
            if self.window.refuses(&record, frame.received_at_us).is_some() {
                self.refused.time_window += 1;
                continue;
            }
            let mut built = BuiltRow::new(frame.imei, frame.received_at_us, avl.codec(), &record);
            (built.row.frame, built.row.record_index) = (frame.position, index);
            self.again.rows.push(&built.row, record.wire(), |io| built.write_io(&record, io));
        }
    }

    /// Whether there is enough for a transaction.
    #[must_use]
    pub fn is_full(&self, rows: usize) -> bool {
        let Again { rows: built, messages, .. } = &self.again;
        built.len() >= rows || built.bytes() >= BYTES_MAX || messages.len() >= MESSAGES_MAX
    }

    /// Whether there is nothing to write and nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.again.is_empty() && self.refused == Refused::default()
    }

    /// What was gathered, for the store.
    pub fn again(&mut self) -> &mut Again {
        &mut self.again
    }

    /// Begins anew; gives what was refused.
    pub fn take_refused(&mut self) -> Refused {
        self.again.clear();
        std::mem::take(&mut self.refused)
    }
}

/// What is known of quarantined bytes beside them.
#[must_use]
pub fn entry_of(imei: Imei, received_at_us: i64, bytes: &[u8]) -> NewEntry<'_> {
    // The first count, as far as there is one.
    let records = match bytes {
        [codec, count, ..] if AvlCodec::from_id(*codec).is_some() => *count,
        _ => 0,
    };
    NewEntry { kind: Kind::Undecodable, imei, received_at_us, records, bytes }
}

/// A batch in memory, beside its rows.
const BYTES_MAX: usize = 8 << 20;
const MESSAGES_MAX: usize = 1_000;
