//! One tracker's session as a step function: bytes and time in, the next step out. It has no socket and no clock.

use std::time::Duration;

use teltonika_codecs::{
    AvlData, Frame, Imei, MessageCodec, NextItem, Rejection, RejectionReason, StreamItem, StreamPhase, next_item,
};
use tokio::time::Instant;

use super::close::CloseReason;

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the connection to the last byte of the login.
    pub login: Duration,
    /// From the first to the last byte of a frame.
    pub frame: Duration,
    /// From the last item to the next byte.
    pub idle: Duration,
}

/// A session, from the login on.
#[derive(Debug)]
pub(super) struct TrackerSession {
    /// The device, once it is logged in.
    imei: Option<Imei>,
    timeouts: Timeouts,
    opened: Instant,
    /// When the last whole item came.
    last_item: Instant,
    /// Since when an item has been incomplete.
    incomplete_since: Option<Instant>,
    /// How much of a long incomplete item is there. Such an item takes memory from others.
    long_len: Option<usize>,
    /// Pings before the login.
    early_pings: u8,
}

/// What to do next. Every step except `Wait` and `Close` names the bytes to drop before the next one.
#[derive(Debug)]
pub(super) enum SessionStep<'a> {
    /// Read on: the item at the head is incomplete.
    Wait {
        /// Length of the whole item, if it is known.
        total: Option<usize>,
    },
    /// Nothing to answer: a ping, or the empty message that some devices send as one.
    Ping {
        /// Bytes to drop.
        consumed: usize,
    },
    /// Answer a login: call [`TrackerSession::admit`] if the device may log in, and end the session otherwise.
    Login {
        /// The device.
        imei: Imei,
        /// Bytes to drop.
        consumed: usize,
    },
    /// Hand the frame over and answer with its receipt.
    Submit {
        /// The device that is logged in.
        imei: Imei,
        /// The records.
        avl: AvlData<'a>,
        /// Bytes to drop.
        consumed: usize,
    },
    /// Answer a frame without records with 0, and store nothing.
    AckNothing {
        /// The frame.
        avl: AvlData<'a>,
        /// Bytes to drop.
        consumed: usize,
    },
    /// Hand over a frame that cannot be decoded though its checksum is right, and answer with its receipt. Otherwise
    /// the tracker would send it forever.
    Undecodable {
        /// The device that is logged in.
        imei: Imei,
        /// Why it cannot be decoded.
        rejection: Rejection,
        /// Bytes to drop.
        consumed: usize,
    },
    /// Hand a message over. It is never answered with a count.
    Message {
        /// The device that is logged in.
        imei: Imei,
        /// Its codec.
        codec: MessageCodec,
        /// Bytes to drop.
        consumed: usize,
    },
    /// End the session unanswered.
    Close {
        /// What the end is called.
        reason: CloseReason,
        /// The codec's refusal, if there is one.
        rejection: Option<Rejection>,
    },
}

impl TrackerSession {
    /// A session that was opened at `now` and waits for a login.
    pub(super) fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self {
            imei: None,
            timeouts,
            opened: now,
            last_item: now,
            incomplete_since: None,
            long_len: None,
            early_pings: 0,
        }
    }

    /// Decides about the head of the unread bytes. Call it again until it returns `Wait` or `Close`.
    pub(super) fn step<'a>(&mut self, unread: &'a [u8], now: Instant) -> SessionStep<'a> {
        let phase = if self.imei.is_some() { StreamPhase::Frames } else { StreamPhase::Login };
        match next_item(unread, phase) {
            NextItem::Incomplete { total, .. } => {
                match (unread, self.incomplete_since) {
                    ([], _) => self.incomplete_since = None,
                    (_, None) => self.incomplete_since = Some(now),
                    (_, Some(_)) => {}
                }
                self.long_len = total.filter(|total| *total > READ_LEN).map(|_| unread.len());
                SessionStep::Wait { total }
            }
            NextItem::Fatal(rejection) => {
                let reason = match (phase, CloseReason::for_rejection(rejection.reason)) {
                    (StreamPhase::Login, CloseReason::FramingLost) => CloseReason::NotATracker,
                    (_, reason) => reason,
                };
                SessionStep::Close { reason, rejection: Some(rejection) }
            }
            NextItem::Item { item, consumed } => {
                (self.last_item, self.incomplete_since, self.long_len) = (now, None, None);
                self.item(item, consumed)
            }
        }
    }

    /// Lets the device in: frames are its own from now on.
    pub(super) fn admit(&mut self, imei: Imei) {
        self.imei = Some(imei);
    }

    /// When the peer has to have sent more, and what the end is called otherwise.
    pub(super) fn deadline(&self) -> (Instant, CloseReason) {
        match (self.imei, self.incomplete_since) {
            // The whole login has one deadline: a byte now and then does not extend it.
            (None, _) => (self.opened + self.timeouts.login, CloseReason::LoginTimeout),
            (Some(_), Some(since)) => {
                let slow = self.long_len.map(|len| GRACE + Duration::from_secs(len as u64 / SLOWEST));
                (since + slow.unwrap_or(self.timeouts.frame).min(self.timeouts.frame), CloseReason::FrameTimeout)
            }
            (Some(_), None) => (self.last_item + self.timeouts.idle, CloseReason::IdleTimeout),
        }
    }

    /// Does not charge the peer for time that it spent waiting for us.
    pub(super) fn extend_deadline(&mut self, waited: Duration) {
        self.last_item += waited;
        self.incomplete_since = self.incomplete_since.map(|since| since + waited);
    }

    /// Begins the peer's time again, because it was answered.
    pub(super) fn restart_deadline(&mut self, now: Instant) {
        self.last_item = self.last_item.max(now);
        self.incomplete_since = self.incomplete_since.map(|since| since.max(now));
    }

    /// The device, once it is logged in.
    pub(super) fn imei(&self) -> Option<Imei> {
        self.imei
    }

    fn item<'a>(&mut self, item: StreamItem<'a>, consumed: usize) -> SessionStep<'a> {
        let close = |reason| SessionStep::Close { reason, rejection: None };
        match (item, self.imei) {
            (StreamItem::Ping, None) if self.early_pings == MAX_EARLY_PINGS => close(CloseReason::NotATracker),
            (StreamItem::Ping, None) => {
                self.early_pings += 1;
                SessionStep::Ping { consumed }
            }
            (StreamItem::Ping | StreamItem::Frame(Frame::EmptyMessage(_)), _) => SessionStep::Ping { consumed },
            (StreamItem::Login(imei), Some(known)) if imei != known => close(CloseReason::ImeiChanged),
            (StreamItem::Login(imei), _) => SessionStep::Login { imei, consumed },
            // Before a login, the codec returns no frames.
            (StreamItem::Frame(_), None) => close(CloseReason::NotATracker),
            (StreamItem::Frame(Frame::Message(message)), Some(imei)) => {
                SessionStep::Message { imei, codec: message.codec, consumed }
            }
            (StreamItem::Frame(Frame::Avl(avl)), Some(_)) if avl.count() == 0 => {
                SessionStep::AckNothing { avl, consumed }
            }
            (StreamItem::Frame(Frame::Avl(avl)), Some(imei)) => SessionStep::Submit { imei, avl, consumed },
            (StreamItem::Rejected(rejection), Some(imei)) if rejection.reason != RejectionReason::CrcMismatch => {
                SessionStep::Undecodable { imei, rejection, consumed }
            }
            (StreamItem::Rejected(rejection), _) => {
                SessionStep::Close { reason: CloseReason::for_rejection(rejection.reason), rejection: Some(rejection) }
            }
        }
    }
}

/// Bytes per read: three of the largest frames seen in the field. Larger reads would buffer more behind a blocked
/// frame. A frame up to this size needs no budget while it arrives, because any peer can announce one.
pub(super) const READ_LEN: usize = 4096;
/// How long a long item may take at least, and how many bytes a second it has to bring after that.
const GRACE: Duration = Duration::from_secs(10);
const SLOWEST: u64 = 256;
/// No tracker pings before its login; a stranger could do it all day.
const MAX_EARLY_PINGS: u8 = 64;
