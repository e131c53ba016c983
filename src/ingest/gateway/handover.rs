//! Handing over what a session decided: frames, messages and what cannot be decoded go to the intake, as far as it has room.

use std::pin::Pin;

use teltonika_codecs::{ENVELOPE_LEN, Imei, MessageCodec, Rejection, reply};
use tokio::time::Instant;

use super::connection::{Connection, READ_LEN};
use super::metrics::{FrameCodec, LoginResult};
use super::sockets::Sockets;
use super::{CloseReason, SessionStep};
use crate::ingest::admission::LoginDecision;
use crate::ingest::intake::{Budget, Closed, Intake, PendingReceipt, SubmitError};
use odograph_journal::{EntryKind, NewEntry};

/// Waits for room. Dropped before it completes, nothing was taken.
pub(super) type RoomWait = Pin<Box<dyn Future<Output = RoomGrant> + Send>>;

/// There is room now.
pub(super) enum RoomGrant {
    /// A frame was handed over that was complete at this time.
    Submitted(Result<(PendingReceipt, Instant), Closed>),
    /// A message was, which nobody answers.
    Message(Result<(), Closed>),
    /// An item may be read to its end.
    Reserved(Result<Budget, Closed>),
}

impl<S> Connection<'_, S> {
    /// Takes whole items from the head of `unread` until one is incomplete or finds no room; gives the bytes to drop.
    pub(super) fn take_items(&mut self, unread: &[u8]) -> usize {
        let (mut at, mut waits) = (0, false);
        (self.missing, self.unworked) = (None, false);
        while self.closing.is_none() && self.blocked.is_none() && !self.answers.is_full() {
            let (rest, now) = (unread.get(at..).unwrap_or_default(), Instant::now());
            at += match self.session.step(rest, now) {
                SessionStep::Wait { total } => {
                    waits = true;
                    self.missing = total.map(|total| total - rest.len());
                    if let (Some(total), Some(_)) = (total.filter(|total| *total > READ_LEN), self.session.imei()) {
                        self.reserve(total);
                    }
                    break;
                }
                SessionStep::Close { reason, rejection } => {
                    self.refuse(reason, rejection, rest);
                    break;
                }
                SessionStep::Ping { consumed } => consumed,
                SessionStep::Login { imei, consumed } => {
                    self.log_in(imei, now);
                    consumed
                }
                SessionStep::AckNothing { avl, consumed } => {
                    self.gateway.metrics.avl_frame(avl.codec(), 0);
                    self.answers.bytes(&NOTHING, now);
                    consumed
                }
                SessionStep::Submit { imei, avl, consumed } => {
                    self.gateway.metrics.avl_frame(avl.codec(), avl.count());
                    self.hand_over(EntryKind::Frame, imei, Some(avl.count()), data(rest, consumed), now);
                    consumed
                }
                SessionStep::Undecodable { imei, rejection, consumed } => {
                    self.undecodable(imei, rejection, data(rest, consumed), now);
                    consumed
                }
                SessionStep::Message { imei, codec, consumed } => {
                    self.gateway.metrics.message(codec);
                    self.hand_over(EntryKind::Message, imei, None, data(rest, consumed), now);
                    consumed
                }
            };
            self.budget = None;
        }
        // Ended for lack of room, not of bytes.
        self.unworked = at < unread.len() && !waits;
        at
    }

    fn log_in(&mut self, imei: Imei, now: Instant) {
        if self.session.imei().is_none() && !self.may_come_in(imei, now) {
            return;
        }
        self.session.admit(imei);
        self.gateway.metrics.login(LoginResult::Accepted);
        self.answers.bytes(&reply::LOGIN_ACCEPTED, now);
        if self.place.is_none() {
            let (place, before) = Sockets::enter(&self.gateway.sockets, imei, self.number);
            self.place = Some(place);
            match before {
                None => tracing::debug!(%imei, session = self.number, "tracker logged in"),
                Some(before) => tracing::debug!(
                    %imei, session = self.number, before,
                    "tracker logged in again while an older socket of it is open; this one is the newest"
                ),
            }
        }
    }

    /// Whether the device is registered, where it has to be. Otherwise the session ends.
    fn may_come_in(&mut self, imei: Imei, now: Instant) -> bool {
        let gateway = self.gateway;
        let Some(admission) = gateway.admission.as_deref() else { return true };
        // Before the question: a list that changes in between is noticed.
        let seat = admission.session(imei, self.number);
        let (result, reason) = match admission.decide(imei) {
            LoginDecision::Accepted => {
                self.seat = Some(seat);
                return true;
            }
            LoginDecision::Unknown => {
                admission.refused(imei, self.peer);
                self.answers.bytes(&reply::LOGIN_REFUSED, now);
                (LoginResult::Unknown, CloseReason::UnknownDevice)
            }
            // To refuse what may well be registered could keep a tracker away for long.
            LoginDecision::NeverKnown => (LoginResult::AdmissionUnknown, CloseReason::AdmissionUnknown),
        };
        gateway.metrics.login(result);
        tracing::debug!(%imei, session = self.number, %reason, "tracker turned away");
        self.close(reason);
        false
    }

    /// A frame whose checksum is right and whose content is not. It is kept for the operator, and acknowledged with the
    /// count that it names.
    fn undecodable(&mut self, imei: Imei, rejection: Rejection, data: &[u8], now: Instant) {
        let codec = data.first().copied();
        self.gateway.metrics.undecodable(FrameCodec::of(codec), rejection.reason);
        tracing::error!(
            session = self.number, codec, reason = %rejection.reason, offset = rejection.offset,
            "a frame with a right checksum cannot be decoded; it goes to quarantine: {}", rejection.detail
        );
        tracing::debug!(%imei, session = self.number, "sent by this tracker");
        // Messages are never answered with a count.
        let is_message = codec.and_then(MessageCodec::from_id).is_some();
        let records = if is_message { None } else { Some(data.get(1).copied().unwrap_or(0)) };
        self.hand_over(EntryKind::Undecodable, imei, records, data, now);
    }

    /// Hands an entry over, to be answered with its receipt where it has a count.
    fn hand_over(&mut self, kind: EntryKind, imei: Imei, records: Option<u8>, bytes: &[u8], now: Instant) {
        let received_at_us = (self.gateway.wall)();
        let entry = NewEntry { kind, imei, received_at_us, records: records.unwrap_or(0), bytes };
        match self.gateway.intake.try_submit(&entry) {
            // Nobody waits for a message.
            Ok(_) if records.is_none() => {}
            Ok(pending) => self.answers.receipt(pending, now),
            Err(SubmitError::Closed) => self.close(CloseReason::Stopping),
            Err(SubmitError::NoRoom) => {
                let (intake, held) = (self.gateway.intake.clone(), self.budget.take());
                let waiting = BlockedEntry { intake, held, kind, imei, records, received_at_us };
                self.block(Box::pin(waiting.submit(bytes.to_vec(), now)), now);
            }
        }
    }

    /// Finds room for an item that is under way.
    fn reserve(&mut self, total: usize) {
        if self.budget.as_ref().is_some_and(|held| held.bytes() >= total) {
            return;
        }
        self.budget = self.gateway.intake.try_reserve(total);
        if self.budget.is_none() {
            let intake = self.gateway.intake.clone();
            self.block(Box::pin(async move { RoomGrant::Reserved(intake.reserve(total).await) }), Instant::now());
        }
    }

    fn block(&mut self, blocked: RoomWait, now: Instant) {
        (self.blocked, self.since) = (Some(blocked), now);
    }

    fn refuse(&mut self, reason: CloseReason, rejection: Option<Rejection>, unread: &[u8]) {
        match (self.session.imei(), rejection) {
            (None, _) => self.gateway.metrics.login(LoginResult::Refused),
            (Some(imei), Some(rejection)) => {
                self.gateway.metrics.refused(rejection.reason);
                let number = self.number;
                tracing::warn!(session = number, reason = %rejection.reason, offset = rejection.offset, "frame refused: {}", rejection.detail);
                tracing::debug!(%imei, session = number, "sent by this tracker");
                if let (CloseReason::CrcMismatch, Some(crc_dump)) = (reason, &self.gateway.crc_dump) {
                    crc_dump.frame(unread);
                }
            }
            (Some(_), None) => {}
        }
        self.close(reason);
    }
}

/// An entry that waits for room.
struct BlockedEntry {
    intake: Intake,
    held: Option<Budget>,
    kind: EntryKind,
    imei: Imei,
    records: Option<u8>,
    received_at_us: i64,
}

impl BlockedEntry {
    async fn submit(self, bytes: Vec<u8>, complete: Instant) -> RoomGrant {
        let Self { intake, held, kind, imei, records, received_at_us } = self;
        let entry = NewEntry { kind, imei, received_at_us, records: records.unwrap_or(0), bytes: &bytes };
        let submitted = async {
            let budget = match held.filter(|held| held.bytes() >= bytes.len()) {
                Some(budget) => budget,
                None => intake.reserve(bytes.len()).await?,
            };
            intake.submit(&entry, budget).await
        };
        match (submitted.await, records) {
            (submitted, Some(_)) => RoomGrant::Submitted(submitted.map(|pending| (pending, complete))),
            (submitted, None) => RoomGrant::Message(submitted.map(drop)),
        }
    }
}

/// The data field of a whole frame.
fn data(unread: &[u8], consumed: usize) -> &[u8] {
    unread.get(ENVELOPE_LEN - CRC_LEN..consumed - CRC_LEN).unwrap_or_default()
}

/// Acknowledges a frame without records.
static NOTHING: [u8; 4] = [0; 4];
/// Bytes of the CRC behind the data field.
const CRC_LEN: usize = 4;
