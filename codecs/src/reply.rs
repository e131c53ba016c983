//! What a server answers: login, acknowledgements, and commands.

use crate::codec::MessageCodec;
use crate::envelope::enclose;
use crate::imei::Imei;

/// Answer to a login that is accepted: exactly this byte (section 1.1).
pub const LOGIN_ACCEPTED: [u8; 1] = [0x01];
/// Answer to a login that is refused.
pub const LOGIN_REFUSED: [u8; 1] = [0x00];

/// Answer to an AVL frame over TCP: the number of records accepted (section 1.4).
#[must_use]
pub fn tcp_ack(records: u8) -> [u8; 4] {
    u32::from(records).to_be_bytes()
}

/// Answer to an AVL datagram: both packet ids echoed and the number of records accepted (section 3).
#[must_use]
pub fn udp_ack(packet_id: u16, avl_packet_id: u8, records: u8) -> [u8; 7] {
    let [high, low] = packet_id.to_be_bytes();
    [0x00, 0x05, high, low, 0x01, avl_packet_id, records]
}

/// A Codec 12 command (section 4). Keep one outstanding a connection: no id ties an answer to it.
#[must_use]
pub fn codec12_command(payload: &[u8]) -> Vec<u8> {
    command(MessageCodec::Codec12, &[], payload)
}

/// A Codec 14 command, which only the device of this IMEI carries out (section 4).
#[must_use]
pub fn codec14_command(imei: Imei, payload: &[u8]) -> Vec<u8> {
    command(MessageCodec::Codec14, &imei.to_packed(), payload)
}

fn command(codec: MessageCodec, head: &[u8], payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(head.len() + payload.len()).unwrap_or(u32::MAX);
    let mut data = vec![codec.id(), 1, COMMAND];
    data.extend_from_slice(&size.to_be_bytes());
    data.extend_from_slice(head);
    data.extend_from_slice(payload);
    data.push(1);
    enclose(&data)
}

/// Message type of a command (section 4).
const COMMAND: u8 = 0x05;
