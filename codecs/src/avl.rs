//! The AVL data field of Codec 8, 8E and 16: a count and so many records (sections 1.3 and 2).

use crate::codec::AvlCodec;
use crate::layout::{Codec8ELayout, Codec8Layout, Codec16Layout, Layout};
use crate::record::{self, Record};
use crate::rejection::{Rejection, RejectionReason};

/// The records of one frame or datagram, every byte of them checked to follow the codec.
#[derive(Clone, Copy, Debug)]
pub struct AvlData<'a> {
    codec: AvlCodec,
    count: u8,
    records: &'a [u8],
    lengths: Lengths,
}

/// Lengths of the first records, found by the walk, so that reading them need not walk again. 0 is "not kept": the record is
/// further back, or longer than any tracker's.
type Lengths = [u16; 16];

impl<'a> AvlData<'a> {
    /// Opens a data field from codec id to second count. Offsets in a refusal count from the codec id.
    ///
    /// # Errors
    /// `unsupported_codec`, `count_mismatch` or `bad_structure`, checked in this order.
    pub fn open(data: &'a [u8]) -> Result<Self, Rejection> {
        let (id, count, second, records) = match data {
            [id, count, records @ .., second] => (*id, *count, *second, records),
            [id, ..] if AvlCodec::from_id(*id).is_none() => (*id, 0, 0, &[] as &[u8]),
            _ => return Err(Rejection::new(RejectionReason::BadStructure, data.len(), "codec id and two counts")),
        };
        let Some(codec) = AvlCodec::from_id(id) else {
            return Err(Rejection::new(RejectionReason::UnsupportedCodec, 0, "codec id"));
        };
        if count != second {
            return Err(Rejection::new(RejectionReason::CountMismatch, data.len() - 1, "second record count"));
        }
        let lengths = match codec {
            AvlCodec::Codec8 => walk::<Codec8Layout>(count, records),
            AvlCodec::Codec8E => walk::<Codec8ELayout>(count, records),
            AvlCodec::Codec16 => walk::<Codec16Layout>(count, records),
        }?;
        Ok(Self { codec, count, records, lengths })
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
        Records { codec: self.codec, rest: self.records, at: 0, lengths: self.lengths }
    }
}

/// Walks every record: exactly `count` of them, and not a byte left over.
#[inline]
fn walk<L: Layout>(count: u8, records: &[u8]) -> Result<Lengths, Rejection> {
    let refuse = |left, what| Rejection::new(RejectionReason::BadStructure, HEAD_LEN + records.len() - left, what);
    let (mut rest, mut lengths) = (records, Lengths::default());
    for at in 0..usize::from(count) {
        let behind = record::skip::<L>(rest).map_err(|short| refuse(short.left, short.what))?;
        if let Some(length) = lengths.get_mut(at) {
            *length = u16::try_from(rest.len() - behind.len()).unwrap_or(0);
        }
        rest = behind;
    }
    if rest.is_empty() { Ok(lengths) } else { Err(refuse(rest.len(), "bytes left over")) }
}

/// Iterates the records of a frame without allocation.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    codec: AvlCodec,
    rest: &'a [u8],
    at: usize,
    lengths: Lengths,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    /// All records were walked by [`AvlData::open`], so the only end is the end of the bytes.
    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let length = match self.lengths.get(self.at) {
            Some(kept @ 1..) => usize::from(*kept),
            _ => record::length(self.codec, self.rest)?,
        };
        let (wire, rest) = self.rest.split_at_checked(length)?;
        (self.rest, self.at) = (rest, self.at + 1);
        record::read(self.codec, wire)
    }
}

impl std::iter::FusedIterator for Records<'_> {}

/// Codec id and first count.
const HEAD_LEN: usize = 2;
