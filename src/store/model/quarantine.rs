//! What an operator sees of the quarantine: its records, by reason, device and time.

use teltonika_codecs::Imei;

use super::batch::QuarantineReason;
use odograph_journal::{JournalId, Position};

/// Which records to select. An empty filter selects all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuarantineFilter {
    /// Refused for this reason.
    pub reason: Option<QuarantineReason>,
    /// From this device.
    pub imei: Option<Imei>,
    /// First received at this time or later, microseconds since 1970-01-01 UTC.
    pub from_us: Option<i64>,
    /// First received before this time.
    pub to_us: Option<i64>,
    /// The digest begins with these hexadecimal digits.
    pub digest: Option<String>,
}

/// A record, or a whole frame, in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Who sent it.
    pub imei: Imei,
    /// SHA-256 of its bytes. Device and digest together are its key.
    pub digest: [u8; 32],
    /// Why it is there.
    pub reason: String,
    /// The details.
    pub detail: String,
    /// When it was first received, microseconds since 1970-01-01 UTC.
    pub received_at_us: i64,
    /// The journal that had it.
    pub journal: JournalId,
    /// The frame that brought it.
    pub position: Position,
    /// Its index among the frame's records; `None` for a whole frame.
    pub record_index: Option<u8>,
    /// Codec id on the wire.
    pub codec: u8,
    /// A record's bytes on the wire, or a frame's data field.
    pub bytes: Vec<u8>,
    /// How often it was received.
    pub seen: u64,
}

/// A place in the order of time, from which to read on: receive time, device, digest.
pub type QuarantineCursor = (i64, Imei, [u8; 32]);

impl QuarantineEntry {
    /// Its place in the order of time.
    #[must_use]
    pub const fn cursor(&self) -> QuarantineCursor {
        (self.received_at_us, self.imei, self.digest)
    }
}

/// How much is quarantined for a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineTotal {
    /// The reason.
    pub reason: String,
    /// Records and whole frames.
    pub records: u64,
    /// How often they were received.
    pub seen: u64,
}

/// A row that odograph cannot have written.
#[derive(Debug, thiserror::Error)]
#[error("quarantined_records holds a row that odograph did not write")]
pub(crate) struct ForeignQuarantineRow;

/// A record with the column types of the databases.
pub(crate) struct QuarantineRow {
    pub(crate) imei: i64,
    pub(crate) digest: Vec<u8>,
    pub(crate) reason: String,
    pub(crate) detail: String,
    pub(crate) received_at_us: i64,
    pub(crate) journal: [u8; 16],
    pub(crate) position: i64,
    pub(crate) record_index: Option<i16>,
    pub(crate) codec: i16,
    pub(crate) bytes: Vec<u8>,
    pub(crate) seen: i64,
}

impl TryFrom<QuarantineRow> for QuarantineEntry {
    type Error = ForeignQuarantineRow;

    fn try_from(row: QuarantineRow) -> Result<Self, ForeignQuarantineRow> {
        let QuarantineRow {
            imei,
            digest,
            reason,
            detail,
            received_at_us,
            journal,
            position,
            record_index,
            codec,
            bytes,
            seen,
        } = row;
        let imei = u64::try_from(imei).ok().and_then(|imei| Imei::try_from(imei).ok()).ok_or(ForeignQuarantineRow)?;
        let small = |number: i16| u8::try_from(number).map_err(|_| ForeignQuarantineRow);
        Ok(Self {
            imei,
            digest: digest.try_into().map_err(|_| ForeignQuarantineRow)?,
            reason,
            detail,
            received_at_us,
            journal: JournalId::from_bytes(journal),
            position: Position(u64::try_from(position).map_err(|_| ForeignQuarantineRow)?),
            record_index: record_index.map(small).transpose()?,
            codec: small(codec)?,
            bytes,
            seen: u64::try_from(seen).unwrap_or(0),
        })
    }
}

pub(crate) const OPENING_QUARANTINE: &str = "connecting to the database for the quarantine";
pub(crate) const READING_QUARANTINE: &str = "reading the quarantine";
pub(crate) const PURGING_QUARANTINE: &str = "purging the quarantine";
/// Rows that one transaction purges: about ten milliseconds.
pub(crate) const QUARANTINE_PURGE_ROWS: u32 = 5_000;
