//! The AVL data field of Codec 8, 8E and 16: a count and so many records (sections 1.3 and 2).

use crate::parse::exactly;
use crate::record::{Record, record};
use crate::rejection::{Reason, Rejection};

/// The codecs that carry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AvlCodec {
    /// 0x08: one-byte ids and counts.
    Codec8,
    /// 0x8E, "8 Extended": two-byte ids and counts, and elements of variable length.
    Codec8E,
    /// 0x10: two-byte ids, a generation type.
    Codec16,
}

impl AvlCodec {
    /// Every codec of this kind.
    pub const ALL: [Self; 3] = [Self::Codec8, Self::Codec8E, Self::Codec16];

    /// The codec of a wire id.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0x08 => Some(Self::Codec8),
            0x8E => Some(Self::Codec8E),
            0x10 => Some(Self::Codec16),
            _ => None,
        }
    }

    /// The id on the wire.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Codec8 => 0x08,
            Self::Codec8E => 0x8E,
            Self::Codec16 => 0x10,
        }
    }

    /// The vendor's name: "8", "8E" or "16".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Codec8 => "8",
            Self::Codec8E => "8E",
            Self::Codec16 => "16",
        }
    }
}

/// The records of one frame or datagram, every byte of them checked to follow the codec.
#[derive(Clone, Copy, Debug)]
pub struct AvlData<'a> {
    codec: AvlCodec,
    count: u8,
    records: &'a [u8],
}

impl<'a> AvlData<'a> {
    /// Opens a data field from codec id to second count. Offsets in a refusal count from the codec id.
    ///
    /// # Errors
    /// `unsupported_codec`, `count_mismatch` or `bad_structure`, checked in this order.
    pub fn open(data: &'a [u8]) -> Result<Self, Rejection> {
        let (id, count, second, records) = match data {
            [id, count, records @ .., second] => (*id, *count, *second, records),
            [id, ..] if AvlCodec::from_id(*id).is_none() => (*id, 0, 0, &[] as &[u8]),
            _ => return Err(Rejection::new(Reason::BadStructure, data.len(), "codec id and two counts")),
        };
        let Some(codec) = AvlCodec::from_id(id) else {
            return Err(Rejection::new(Reason::UnsupportedCodec, 0, "codec id"));
        };
        if count != second {
            return Err(Rejection::new(Reason::CountMismatch, data.len() - 1, "second record count"));
        }
        exactly(records, "record", |input| {
            let mut rest = input;
            for _ in 0..count {
                rest = record(codec, rest)?.0;
            }
            Ok((rest, ()))
        })
        .map_err(|rejection| rejection.shifted(HEAD_LEN))?;
        Ok(Self { codec, count, records })
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> AvlCodec {
        self.codec
    }

    /// The number of records, 0 to 255: what an acknowledgement names.
    #[must_use]
    pub fn count(&self) -> u8 {
        self.count
    }

    /// The records in wire order, which is newest first by the trackers' default (section 2.6).
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        Records { codec: self.codec, rest: self.records }
    }
}

/// Iterates the records of a frame without allocation.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    codec: AvlCodec,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        // All records were walked by `AvlData::open`, so the only end is the end of the bytes.
        let (rest, record) = record(self.codec, self.rest).ok()?;
        self.rest = rest;
        Some(record)
    }
}

/// Codec id and first count.
const HEAD_LEN: usize = 2;
