//! The UDP channel: one datagram, one AVL data field, no CRC (section 3).

use nom::Parser as _;
use nom::bytes::complete::take;
use nom::error::context;
use nom::number::complete::{be_u8, be_u16};

use crate::avl::AvlData;
use crate::imei::Imei;
use crate::parse::Parsed;
use crate::rejection::{Rejection, RejectionReason};

/// A datagram: two packet ids to echo in the answer, the device and its records.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Id of the channel packet; whether a device checks it is doubtful, so it is echoed.
    pub packet_id: u16,
    /// Id of the AVL packet, which the device matches; a retry keeps it.
    pub avl_packet_id: u8,
    /// The device.
    pub imei: Imei,
    /// Its records.
    pub avl: AvlData<'a>,
}

impl<'a> Datagram<'a> {
    /// Opens one datagram.
    ///
    /// # Errors
    /// `truncated`, `bad_imei`, `unsupported_codec`, `count_mismatch`, `bad_structure`, checked in this order; bytes
    /// behind the length that the datagram names are `bad_structure`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Rejection> {
        let truncated = |what| Rejection::new(RejectionReason::Truncated, bytes.len(), what);
        let Some((length, _)) = bytes.split_first_chunk() else {
            return Err(truncated("length of the datagram"));
        };
        let end = LENGTH_LEN + usize::from(u16::from_be_bytes(*length));
        let packet = bytes.get(LENGTH_LEN..end).ok_or_else(|| truncated("datagram of its length"))?;
        let Ok((data, (packet_id, _, avl_packet_id, imei))) = channel(packet) else {
            return Err(Rejection::new(RejectionReason::BadStructure, end, "channel and AVL header"));
        };
        let imei = Imei::from_ascii(imei)
            .map_err(|e| Rejection::new(RejectionReason::BadImei, IMEI_AT + e.at, "digit of an IMEI"))?;
        let avl = AvlData::open(data).map_err(|rejection| rejection.shifted(end - data.len()))?;
        if bytes.len() > end {
            return Err(Rejection::new(RejectionReason::BadStructure, end, "bytes behind the datagram"));
        }
        Ok(Self { packet_id, avl_packet_id, imei, avl })
    }
}

/// Packet id, the byte that is not usable, AVL packet id, IMEI with its length.
fn channel(input: &[u8]) -> Parsed<'_, (u16, u8, u8, &[u8])> {
    let (rest, ids) = context("packet ids", (be_u16, be_u8, be_u8)).parse(input)?;
    let (rest, length) = context("IMEI length", be_u16).parse(rest)?;
    let (rest, imei) = context("IMEI", take(length)).parse(rest)?;
    Ok((rest, (ids.0, ids.1, ids.2, imei)))
}

const LENGTH_LEN: usize = 2;
/// Offset of the IMEI's digits.
const IMEI_AT: usize = 8;
