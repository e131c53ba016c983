//! Everything that one transaction commits: new and perhaps stored rows, quarantined bytes, messages, latest positions.

use teltonika_codecs::Imei;
use uuid::Uuid;

use super::row::Row;
use super::rows::Rows;
use odograph_journal::Position;

/// What is committed together. It is cleared and filled again, so that it allocates once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Rows that are new as far as the filter remembers. They are written by COPY. If one is in the table after all, the
    /// whole batch is written under the key.
    pub new: Rows,
    /// Rows that may already be in the table.
    pub perhaps_stored: Rows,
    /// The number of rows that are not sent again: they are in the table by earlier commits of this lane, or in this batch.
    pub known_stored: u64,
    /// The latest position of devices, at most one row each. Written only forward.
    pub latest: Rows,
    /// What cannot become a row.
    pub quarantined: Vec<Quarantined>,
    /// Codec 12 to 15.
    pub messages: Vec<Message>,
}

impl Batch {
    /// The number of rows that the batch offers, including those that are known to be stored.
    #[must_use]
    pub fn offered(&self) -> u64 {
        let counted = |rows: &Rows| u64::try_from(rows.len()).unwrap_or(u64::MAX);
        counted(&self.new) + counted(&self.perhaps_stored) + self.known_stored
    }

    /// Whether only a checkpoint has to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offered() == 0 && self.latest.is_empty() && self.quarantined.is_empty() && self.messages.is_empty()
    }

    /// Sorts all rows by the table's key, the order in which they are written.
    pub fn sort(&mut self) {
        self.new.sort();
        self.perhaps_stored.sort();
        self.latest.sort();
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        let Self { new, perhaps_stored, known_stored, latest, quarantined, messages } = self;
        new.clear();
        perhaps_stored.clear();
        *known_stored = 0;
        latest.clear();
        quarantined.clear();
        messages.clear();
    }
}

/// Bytes that cannot become a row, kept for the operator. The same bytes of a device are kept once, with a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Who sent it.
    pub imei: Imei,
    /// Why.
    pub reason: QuarantineReason,
    /// The details, without values: a SQLSTATE, the name of a constraint, a decoder's reason.
    pub detail: String,
    /// Receive time, microseconds since 1970-01-01 UTC.
    pub received_at_us: i64,
    /// The frame that brought it.
    pub frame: Position,
    /// Its index among the frame's records, from 0; `None` for a whole frame.
    pub record_index: Option<u8>,
    /// Codec id on the wire.
    pub codec: u8,
    /// A record's bytes on the wire, or a frame's data field.
    pub bytes: Vec<u8>,
}

impl Quarantined {
    /// A record that became a row which the table cannot hold, with its bytes on the wire.
    #[must_use]
    pub fn record(row: &Row, reason: QuarantineReason, detail: impl Into<String>, wire: &[u8]) -> Self {
        Self {
            imei: row.imei,
            reason,
            detail: detail.into(),
            received_at_us: row.received_at_us,
            frame: row.frame,
            record_index: Some(row.record_index),
            codec: row.codec,
            bytes: wire.to_vec(),
        }
    }
}

/// Why something is in quarantine; also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuarantineReason {
    /// The frame's checksum is right and its content is not.
    Undecodable,
    /// Device time lies outside the window around the receive time.
    TimeWindow,
    /// The database refuses the row.
    Refused,
}

impl QuarantineReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Undecodable, Self::TimeWindow, Self::Refused];

    /// The label, and the value of the column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::TimeWindow => "time_window",
            Self::Refused => "refused",
        }
    }
}

/// A message of Codec 12, 13, 14 or 15.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it, on the connection.
    pub imei: Imei,
    /// Receive time, microseconds since 1970-01-01 UTC.
    pub received_at_us: i64,
    /// Names it, together with the frame, whatever id the journal has: the same message is stored once.
    pub source: Uuid,
    /// The frame that brought it.
    pub frame: Position,
    /// Codec id on the wire.
    pub codec: u8,
    /// The message's type byte.
    pub message_type: u8,
    /// Codec 13 and 15: its time, milliseconds since 1970-01-01 UTC.
    pub device_time_ms: Option<i64>,
    /// Codec 14 and 15: the device that it names, which may be another one than that of the connection.
    pub device_imei: Option<Imei>,
    /// The payload.
    pub bytes: Vec<u8>,
    /// The payload as text, if it is text that every database accepts.
    pub text: Option<String>,
}
