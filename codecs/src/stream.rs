//! The incremental front: what stands at the head of the unread bytes of a socket (section 1.2).
//!
//! It keeps no buffer of its own, so that a server may hold one only while bytes are incomplete.

use crate::envelope::{Frame, FrameHead, head};
use crate::imei::Imei;
use crate::rejection::{Rejection, RejectionReason};

/// Bytes of a login: a length of 15 and the digits (section 1.1).
pub const LOGIN_LEN: usize = 2 + Imei::LEN;

/// What the peer may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPhase {
    /// Nothing but pings and a login: a frame has no owner yet.
    Login,
    /// Frames and pings; a login again is possible, and the caller decides what it means.
    Frames,
}

/// The answer to "what comes next?".
#[derive(Clone, Copy, Debug)]
pub enum NextItem<'a> {
    /// Wait: at least so many bytes more are needed. `total` is the length of the item where it is known.
    Incomplete {
        /// Bytes missing, 1 or more.
        at_least: usize,
        /// The whole item's length, once its head has said so.
        total: Option<usize>,
    },
    /// An item, and the bytes to drop before asking again.
    Item {
        /// The item.
        item: StreamItem<'a>,
        /// Its length, 1 or more.
        consumed: usize,
    },
    /// Framing is lost or the peer is no tracker: close. No later byte can be trusted.
    Fatal(Rejection),
}

/// One item of the stream.
#[derive(Clone, Copy, Debug)]
pub enum StreamItem<'a> {
    /// The byte 0xFF: keeps the link alive, is never answered (section 1.2).
    Ping,
    /// A login; the answer is one byte.
    Login(Imei),
    /// A frame that can be read.
    Frame(Frame<'a>),
    /// A frame that can be skipped as a whole, and why it could not be read.
    Rejected(Rejection),
}

/// Looks at the head of `unread`. Call it again with the bytes behind `consumed` until it says incomplete.
#[must_use]
pub fn next_item(unread: &[u8], phase: StreamPhase) -> NextItem<'_> {
    match (unread, phase) {
        ([], _) => NextItem::Incomplete { at_least: 1, total: None },
        ([PING, ..], _) => NextItem::Item { item: StreamItem::Ping, consumed: 1 },
        ([0x00, LOGIN_MARK, ..], _) | ([0x00], StreamPhase::Login) => login(unread),
        (_, StreamPhase::Frames) => frame(unread),
        (bytes, StreamPhase::Login) => {
            let offset = usize::from(bytes.first() == Some(&0));
            NextItem::Fatal(Rejection::new(RejectionReason::BadPreamble, offset, "a login of 15 digits"))
        }
    }
}

fn login(unread: &[u8]) -> NextItem<'_> {
    let digits = unread.get(2..).unwrap_or_default();
    if let Some(at) = digits.iter().take(Imei::LEN).position(|byte| !byte.is_ascii_digit()) {
        return NextItem::Fatal(Rejection::new(RejectionReason::BadImei, 2 + at, "digit of an IMEI"));
    }
    match digits.get(..Imei::LEN).map(Imei::from_ascii) {
        Some(Ok(imei)) => NextItem::Item { item: StreamItem::Login(imei), consumed: LOGIN_LEN },
        Some(Err(error)) => NextItem::Fatal(Rejection::new(RejectionReason::BadImei, 2 + error.at, "digit of an IMEI")),
        None => NextItem::Incomplete { at_least: LOGIN_LEN - unread.len(), total: Some(LOGIN_LEN) },
    }
}

fn frame(unread: &[u8]) -> NextItem<'_> {
    let total = match head(unread) {
        Ok(FrameHead::Needs(at_least)) => return NextItem::Incomplete { at_least, total: None },
        Ok(FrameHead::Sized { total }) => total,
        Err(rejection) => return NextItem::Fatal(rejection),
    };
    match unread.get(..total) {
        Some(bytes) => {
            let item = Frame::open_sized(bytes).map_or_else(StreamItem::Rejected, StreamItem::Frame);
            NextItem::Item { item, consumed: total }
        }
        None => NextItem::Incomplete { at_least: total - unread.len(), total: Some(total) },
    }
}

const PING: u8 = 0xFF;
/// Second byte of a login: the length of an IMEI.
const LOGIN_MARK: u8 = 0x0F;
