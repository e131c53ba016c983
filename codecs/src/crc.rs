//! CRC-16/ARC: reflected polynomial 0xA001, initial value 0, no final xor (section 1.3).

use crc_fast::{CrcAlgorithm, checksum};

/// The CRC-16/ARC of a data field (codec id to second count).
///
/// ```
/// assert_eq!(teltonika_codecs::crc16(b"123456789"), 0xBB3D);
/// ```
#[must_use]
pub fn crc16(data: &[u8]) -> u16 {
    // The library returns every width in a u64; the upper 48 bits of a CRC-16 are zero.
    u16::try_from(checksum(CrcAlgorithm::Crc16Arc, data)).unwrap_or(u16::MAX)
}
