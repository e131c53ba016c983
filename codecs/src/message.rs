//! Codec 12, 13, 14 and 15: commands, their answers and serial data. Bytes first, text second (section 4).

use nom::Parser as _;
use nom::bytes::complete::take;
use nom::combinator::{cond, map_opt};
use nom::error::context;
use nom::number::complete::{be_u8, be_u32};

use crate::codec::MessageCodec;
use crate::imei::Imei;
use crate::parse::{Parsed, exactly};
use crate::rejection::{Rejection, RejectionReason};

/// One message. The vendor says that its quantity is to be ignored: there is one message a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The codec.
    pub codec: MessageCodec,
    /// 5 command, 6 response, 0x11 not executed; Codec 15 takes what the device was configured to send.
    pub kind: u8,
    /// Codec 13 and 15: seconds since 1970-01-01 UTC.
    pub timestamp_s: Option<u32>,
    /// Codec 14 and 15.
    pub imei: Option<Imei>,
    /// The payload, which need not be text.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Opens a data field from codec id to second quantity. `None` is the empty message that some devices send as a
    /// ping: quantity 0 (section 1.6). Offsets in a refusal count from the codec id.
    ///
    /// # Errors
    /// `unsupported_codec`, `count_mismatch` or `bad_structure`, checked in this order.
    pub fn open(data: &'a [u8]) -> Result<Option<Self>, Rejection> {
        let Some(codec) = data.first().and_then(|id| MessageCodec::from_id(*id)) else {
            return Err(Rejection::new(RejectionReason::UnsupportedCodec, 0, "codec id"));
        };
        let [_, quantity, body @ .., second] = data else {
            return Err(Rejection::new(RejectionReason::BadStructure, data.len(), "codec id and two quantities"));
        };
        if quantity != second {
            return Err(Rejection::new(RejectionReason::CountMismatch, data.len() - 1, "second quantity"));
        }
        if *quantity == 0 && body.is_empty() {
            return Ok(None);
        }
        let message = exactly(body, "message", |input| message(codec, input)).map_err(|e| e.shifted(HEAD_LEN))?;
        Ok((*quantity != 0).then_some(message))
    }

    /// The payload as text, where it is text.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.payload).ok()
    }
}

/// The time of a Codec 13 message of old firmware: 8 bytes of milliseconds (section 8). Read as seconds, its first half would
/// be an hour of 1970 at most, when no tracker was there.
fn old_timestamp(codec: MessageCodec, sized: &[u8]) -> Option<(&[u8], u32)> {
    let (milliseconds, rest) = sized.split_first_chunk().filter(|_| codec == MessageCodec::Codec13)?;
    let milliseconds = u64::from_be_bytes(*milliseconds);
    let is_plausible = OLD_TIMES.contains(&(milliseconds >> 32));
    is_plausible.then(|| u32::try_from(milliseconds / 1_000).ok()).flatten().map(|seconds| (rest, seconds))
}

/// The upper halves of milliseconds from 2004 to 2106.
const OLD_TIMES: std::ops::RangeInclusive<u64> = 0x100..=0x3E8;
/// Codec id and first quantity.
const HEAD_LEN: usize = 2;

fn message(codec: MessageCodec, input: &[u8]) -> Parsed<'_, Message<'_>> {
    let (rest, kind) = context("message type", be_u8).parse(input)?;
    let (rest, size) = context("message size", be_u32).parse(rest)?;
    // A size beyond the address space cannot be met by any slice either.
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let (rest, sized) = context("message of its size", take(size)).parse(rest)?;
    let (sized, timestamp_s) = match old_timestamp(codec, sized) {
        Some((rest, seconds)) => (rest, Some(seconds)),
        None => context("message timestamp", cond(codec.has_timestamp(), be_u32)).parse(sized)?,
    };
    let packed = map_opt(take(8_usize), |bytes: &[u8]| Imei::from_packed(bytes.try_into().ok()?));
    let (payload, imei) = context("message IMEI", cond(codec.has_imei(), packed)).parse(sized)?;
    Ok((rest, Message { codec, kind, timestamp_s, imei, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec13(time: &[u8]) -> Vec<u8> {
        let size = u32::try_from(time.len() + 2).unwrap();
        [&[0x0D, 1, 5][..], &size.to_be_bytes(), time, b"ok", &[1]].concat()
    }

    #[test]
    fn both_times_of_codec_13_are_read() {
        let seconds = 1_560_161_137_u32;
        for time in [seconds.to_be_bytes().to_vec(), (u64::from(seconds) * 1000 + 7).to_be_bytes().to_vec()] {
            let data = codec13(&time);
            let message = Message::open(&data).unwrap().unwrap();
            assert_eq!((message.timestamp_s, message.payload), (Some(seconds), &b"ok"[..]));
        }
        // Not a time of any layout: as the vendor describes it today.
        let data = codec13(&[0, 0, 0, 5, 1, 2, 3, 4]);
        let message = Message::open(&data).unwrap().unwrap();
        assert_eq!((message.timestamp_s, message.payload), (Some(5), &b"\x01\x02\x03\x04ok"[..]));
    }
}
