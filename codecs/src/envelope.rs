//! The TCP envelope: preamble, length, data field, CRC (section 1.3), and the limits that are checked before waiting.

use crate::avl::AvlData;
use crate::codec::MessageCodec;
use crate::crc::crc16;
use crate::message::Message;
use crate::rejection::{Rejection, RejectionReason};

/// Bytes of a frame around its data field: preamble, length and CRC.
pub const ENVELOPE_LEN: usize = 12;
/// Shortest data field: the codec id and two counts.
pub const MIN_DATA: usize = 3;
/// Longest data field of a codec that carries records, and of an unknown codec. Field frames reach 1,280 bytes.
pub const MAX_AVL_DATA: usize = 16 * 1024;
/// Longest data field of a message codec; camera pieces and long answers exceed AVL frames.
pub const MAX_MESSAGE_DATA: usize = 64 * 1024;

/// What a frame carries, in views of its bytes.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// Codec 8, 8E or 16: records, to be acknowledged by their count.
    Avl(AvlData<'a>),
    /// Codec 12 to 15: never answered with a count.
    Message(Message<'a>),
    /// A message frame of quantity 0: a ping (section 1.6).
    EmptyMessage(MessageCodec),
}

impl<'a> Frame<'a> {
    /// Opens one whole frame, from preamble to CRC.
    ///
    /// # Errors
    /// `bad_preamble`, `too_large`, `too_short`, `truncated`, `crc_mismatch`, `unsupported_codec`, `count_mismatch`, `bad_structure`,
    /// checked in this order; bytes behind the frame are `bad_structure`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Rejection> {
        let head = head(bytes)?;
        let FrameHead::Sized { total } = head else {
            return Err(Rejection::new(RejectionReason::Truncated, bytes.len(), "preamble, length and codec id"));
        };
        if bytes.len() < total {
            return Err(Rejection::new(RejectionReason::Truncated, bytes.len(), "data field and CRC"));
        }
        let frame = Self::open_sized(bytes.get(..total).unwrap_or_default())?;
        if bytes.len() > total {
            return Err(Rejection::new(RejectionReason::BadStructure, total, "bytes behind the frame"));
        }
        Ok(frame)
    }

    /// Opens a frame whose head was read: `bytes` is as long as its length field says.
    pub(crate) fn open_sized(bytes: &'a [u8]) -> Result<Self, Rejection> {
        let Some((data, crc)) = bytes.get(DATA_AT..).and_then(<[u8]>::split_last_chunk) else {
            return Err(Rejection::new(RejectionReason::Truncated, bytes.len(), "data field and CRC"));
        };
        // All four bytes count: the upper two were zero in every frame ever seen.
        if u32::from_be_bytes(*crc) != u32::from(crc16(data)) {
            return Err(Rejection::new(RejectionReason::CrcMismatch, DATA_AT, "CRC-16/ARC over the data field"));
        }
        let frame = match data.first().and_then(|id| MessageCodec::from_id(*id)) {
            Some(codec) => Message::open(data).map(|message| message.map_or(Self::EmptyMessage(codec), Self::Message)),
            None => AvlData::open(data).map(Self::Avl),
        };
        frame.map_err(|rejection| rejection.shifted(DATA_AT))
    }
}

/// What the first bytes of a frame say about its size.
pub(crate) enum FrameHead {
    /// So many bytes more are needed to know.
    Needs(usize),
    /// The whole frame, envelope included, is this long.
    Sized { total: usize },
}

/// Reads preamble and length from as many bytes as there are, and checks the limit before anybody waits or allocates.
pub(crate) fn head(bytes: &[u8]) -> Result<FrameHead, Rejection> {
    if let Some(offset) = bytes.iter().take(LENGTH_AT).position(|byte| *byte != 0) {
        return Err(Rejection::new(RejectionReason::BadPreamble, offset, "four zero bytes before the length"));
    }
    let Some(length) = bytes.get(LENGTH_AT..).and_then(<[u8]>::first_chunk) else {
        return Ok(FrameHead::Needs(DATA_AT - bytes.len()));
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let too_large = Rejection::new(RejectionReason::TooLarge, LENGTH_AT, "length of the data field");
    if length > MAX_MESSAGE_DATA {
        return Err(too_large);
    }
    if length < MIN_DATA {
        // Zero padding between frames looks like this, and nothing behind it can be trusted.
        return Err(Rejection::new(RejectionReason::TooShort, LENGTH_AT, "length of the data field"));
    }
    if length > MAX_AVL_DATA {
        // Only a message codec may be this long, and the codec id is the next byte.
        match bytes.get(DATA_AT) {
            None => return Ok(FrameHead::Needs(1)),
            Some(id) if MessageCodec::from_id(*id).is_none() => return Err(too_large),
            Some(_) => {}
        }
    }
    Ok(FrameHead::Sized { total: length + ENVELOPE_LEN })
}

/// Wraps a data field in the envelope.
pub(crate) fn enclose(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(data.len() + ENVELOPE_LEN);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(data);
    frame.extend_from_slice(&u32::from(crc16(data)).to_be_bytes());
    frame
}

/// Offset of the length field.
const LENGTH_AT: usize = 4;
/// Offset of the data field.
const DATA_AT: usize = 8;
