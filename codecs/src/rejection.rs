//! Why bytes were refused: a small `Copy` value with the offset of the offending byte.

use std::fmt;

/// The reason of a refusal. One to one with the reasons that `odograph decode` prints and the metrics count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionReason {
    /// The login or datagram does not carry 15 ASCII digits (section 1.1).
    BadImei,
    /// Neither a ping, a login nor the four zero bytes of a frame (section 1.2).
    BadPreamble,
    /// The length field is over the limit of its codec (section 1.7).
    TooLarge,
    /// The length field is below what any data field has: a codec id and two counts (section 1.3).
    TooShort,
    /// The item ends before its own length says so.
    Truncated,
    /// CRC-16/ARC over the data field differs from the four bytes behind it (section 1.3).
    CrcMismatch,
    /// The codec id is none of 8, 8E, 16, 12, 13, 14 and 15 (section 4.1).
    UnsupportedCodec,
    /// First and second count differ (section 1.3).
    CountMismatch,
    /// The body does not follow its codec, or bytes are left over (sections 1.3, 2.2 and 4).
    BadStructure,
}

impl RejectionReason {
    /// Every reason, in the order in which they are checked.
    pub const ALL: [Self; 9] = [
        Self::BadImei,
        Self::BadPreamble,
        Self::TooLarge,
        Self::TooShort,
        Self::Truncated,
        Self::CrcMismatch,
        Self::UnsupportedCodec,
        Self::CountMismatch,
        Self::BadStructure,
    ];

    /// The name used in output, logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadImei => "bad_imei",
            Self::BadPreamble => "bad_preamble",
            Self::TooLarge => "too_large",
            Self::TooShort => "too_short",
            Self::Truncated => "truncated",
            Self::CrcMismatch => "crc_mismatch",
            Self::UnsupportedCodec => "unsupported_codec",
            Self::CountMismatch => "count_mismatch",
            Self::BadStructure => "bad_structure",
        }
    }
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: the reason, where, and in words what was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}: {detail}")]
pub struct Rejection {
    /// Why.
    pub reason: RejectionReason,
    /// Offset of the offending byte from the start of the item.
    pub offset: usize,
    /// What was being read, in words.
    pub detail: &'static str,
}

impl Rejection {
    pub(crate) const fn new(reason: RejectionReason, offset: usize, detail: &'static str) -> Self {
        Self { reason, offset, detail }
    }

    /// The same refusal, seen from an enclosing item that begins `by` bytes earlier.
    pub(crate) const fn shifted(self, by: usize) -> Self {
        Self { offset: self.offset + by, ..self }
    }
}
