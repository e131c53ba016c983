//! One tracker's session as a step function: bytes and time in, the next thing to do out. No socket, no clock.

use std::time::Duration;

use teltonika_codecs::{
    AvlData, Frame, Imei, MessageCodec, NextItem, Rejection, RejectionReason, StreamItem, StreamPhase, next_item,
};
use tokio::time::Instant;

use super::close::CloseReason;

/// Patience with a peer.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the connection to the last byte of the login.
    pub login: Duration,
    /// From the first to the last byte of a frame.
    pub frame: Duration,
    /// From the last item to the next byte.
    pub idle: Duration,
}

/// The state of a session.
#[derive(Debug)]
pub struct Session {
    imei: Option<Imei>,
    timeouts: Timeouts,
    opened: Instant,
    last_item: Instant,
    incomplete_since: Option<Instant>,
}

/// What to do next. Every step but `Wait` and `Close` names the bytes to drop before the next one.
#[derive(Debug)]
pub enum SessionStep<'a> {
    /// Read on. `total` is the length of the item under way, where it is known.
    Wait {
        /// Length of the whole item.
        total: Option<usize>,
    },
    /// Nothing to answer: a ping, or the empty message that some devices send as one.
    Ping {
        /// Bytes to drop.
        consumed: usize,
    },
    /// Answer a login. Where the device may not come in, end the session; otherwise say so by [`Session::admit`].
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
    /// A frame without records: answer 0, store nothing.
    AckNothing {
        /// The frame.
        avl: AvlData<'a>,
        /// Bytes to drop.
        consumed: usize,
    },
    /// A frame whose checksum is right and whose content is not: hand it over and answer with its receipt, or the tracker
    /// would send it for ever.
    Undecodable {
        /// The device that is logged in.
        imei: Imei,
        /// What is wrong with it.
        rejection: Rejection,
        /// Bytes to drop.
        consumed: usize,
    },
    /// A message, which is handed over and never answered with a count.
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
        /// Why.
        reason: CloseReason,
        /// What the codec said, where it refused.
        rejection: Option<Rejection>,
    },
}

impl Session {
    /// A session that was opened at `now` and owes a login.
    #[must_use]
    pub fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self { imei: None, timeouts, opened: now, last_item: now, incomplete_since: None }
    }

    /// Decides about the head of the unread bytes. Call again until it says `Wait` or `Close`.
    pub fn step<'a>(&mut self, unread: &'a [u8], now: Instant) -> SessionStep<'a> {
        let phase = if self.imei.is_some() { StreamPhase::Frames } else { StreamPhase::Login };
        match next_item(unread, phase) {
            NextItem::Incomplete { total, .. } => {
                match (unread, self.incomplete_since) {
                    ([], _) => self.incomplete_since = None,
                    (_, None) => self.incomplete_since = Some(now),
                    (_, Some(_)) => {}
                }
                SessionStep::Wait { total }
            }
            NextItem::Fatal(rejection) => {
                let reason = match (phase, CloseReason::of(rejection.reason)) {
                    (StreamPhase::Login, CloseReason::FramingLost) => CloseReason::NotATracker,
                    (_, reason) => reason,
                };
                SessionStep::Close { reason, rejection: Some(rejection) }
            }
            NextItem::Item { item, consumed } => {
                (self.last_item, self.incomplete_since) = (now, None);
                self.item(item, consumed)
            }
        }
    }

    /// The device may come in: frames are its own from now on.
    pub fn admit(&mut self, imei: Imei) {
        self.imei = Some(imei);
    }

    /// When patience ends if nothing comes, and what the end will be called.
    #[must_use]
    pub fn deadline(&self) -> (Instant, CloseReason) {
        match (self.imei, self.incomplete_since) {
            // The whole login has one deadline: a byte now and then does not extend it.
            (None, _) => (self.opened + self.timeouts.login, CloseReason::LoginTimeout),
            (Some(_), Some(since)) => (since + self.timeouts.frame, CloseReason::FrameTimeout),
            (Some(_), None) => (self.last_item + self.timeouts.idle, CloseReason::IdleTimeout),
        }
    }

    /// Takes time that the peer spent waiting for us off its account.
    pub fn excuse(&mut self, waited: Duration) {
        self.last_item += waited;
        self.incomplete_since = self.incomplete_since.map(|since| since + waited);
    }

    /// The peer has been answered: its time begins anew.
    pub fn answered(&mut self, now: Instant) {
        self.last_item = self.last_item.max(now);
        self.incomplete_since = self.incomplete_since.map(|since| since.max(now));
    }

    /// The device, once it is logged in.
    #[must_use]
    pub fn imei(&self) -> Option<Imei> {
        self.imei
    }

    fn item<'a>(&mut self, item: StreamItem<'a>, consumed: usize) -> SessionStep<'a> {
        let close = |reason| SessionStep::Close { reason, rejection: None };
        match (item, self.imei) {
            (StreamItem::Ping | StreamItem::Frame(Frame::EmptyMessage(_)), _) => SessionStep::Ping { consumed },
            (StreamItem::Login(imei), Some(known)) if imei != known => close(CloseReason::ImeiChanged),
            (StreamItem::Login(imei), _) => SessionStep::Login { imei, consumed },
            // Before a login the front gives no frames.
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
                SessionStep::Close { reason: CloseReason::of(rejection.reason), rejection: Some(rejection) }
            }
        }
    }
}
