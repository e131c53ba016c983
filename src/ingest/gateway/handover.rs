//! What a session hands to the intake, and what it owes the tracker for it. It knows bytes and time, but no socket.
//!
//! Frames, messages and what cannot be decoded go to the intake as far as it has room. Answers leave in the order of
//! the frames.

use std::net::IpAddr;
use std::task::{Context, Waker};
use std::time::Duration;

use teltonika_codecs::{ENVELOPE_LEN, Imei, MessageCodec, Rejection, reply};
use tokio::time::Instant;

use super::answers::{AnswerQueue, ReadyAnswers};
use super::close::CloseReason;
use super::context::Gateway;
use super::metrics::{FrameCodec, LoginResult};
use super::room::{self, BlockedEntry, RoomGrant};
use super::session::{READ_LEN, SessionStep, TrackerSession};
use super::sockets::{SocketEntry, Sockets};
use super::state::ConnectionState;
use super::stranger;
use crate::ingest::admission::{LoginDecision, RegisteredSession};
use crate::ingest::intake::{Budget, IntakeClosed, SubmitError};
use odograph_journal::{EntryKind, NewEntry};

/// A session, from the bytes that came to the answers that are due.
pub(super) struct Handover<'a> {
    gateway: &'a Gateway,
    peer: Option<IpAddr>,
    /// The session's number in the log.
    number: u64,
    session: TrackerSession,
    socket: Option<SocketEntry>,
    /// Notices that the device is removed, if devices have to be registered.
    registered: Option<RegisteredSession<'a>>,
    /// For an item that is under way.
    budget: Option<Budget>,
    answers: AnswerQueue,
}

impl<'a> Handover<'a> {
    /// A session that was opened at `now`.
    pub(super) fn new(gateway: &'a Gateway, peer: Option<IpAddr>, number: u64, now: Instant) -> Self {
        let session = TrackerSession::new(gateway.timeouts, now);
        let answers = AnswerQueue::default();
        Self { gateway, peer, number, session, socket: None, registered: None, budget: None, answers }
    }

    /// Takes whole items from the head of `unread` until one is incomplete, finds no room or ends the session. Returns
    /// how many bytes it took, and the state that the connection enters.
    pub(super) fn take_items(&mut self, unread: &[u8]) -> (usize, ConnectionState) {
        let mut taken = 0;
        while !self.answers.is_full() {
            let rest = unread.get(taken..).unwrap_or_default();
            let (consumed, next) = self.take_item(rest, Instant::now());
            taken += consumed;
            if let Some(next) = next {
                return (taken, next);
            }
        }
        (taken, ConnectionState::Buffered)
    }

    /// Takes one item. Returns its length, and a state if no further item can be taken now.
    fn take_item(&mut self, unread: &[u8], now: Instant) -> (usize, Option<ConnectionState>) {
        let (consumed, next) = match self.session.step(unread, now) {
            SessionStep::Wait { total } => return (0, Some(self.wait(total, unread.len(), now))),
            SessionStep::Close { reason, rejection } => {
                self.refuse(reason, rejection, unread);
                return (0, Some(ConnectionState::closing(reason, now)));
            }
            SessionStep::Ping { consumed } => (consumed, None),
            SessionStep::Login { imei, consumed } => (consumed, self.log_in(imei, now)),
            SessionStep::AckNothing { avl, consumed } => {
                self.gateway.metrics.avl_frame(avl.codec(), 0);
                self.answers.push_bytes(&NOTHING, now);
                (consumed, None)
            }
            SessionStep::Submit { imei, avl, consumed } => {
                self.gateway.metrics.avl_frame(avl.codec(), avl.count());
                let data = data(unread, consumed);
                (consumed, self.submit(EntryKind::Frame, imei, Some(avl.count()), data, now))
            }
            SessionStep::Undecodable { imei, rejection, consumed } => {
                (consumed, self.submit_undecodable(imei, rejection, data(unread, consumed), now))
            }
            SessionStep::Message { imei, codec, consumed } => {
                self.gateway.metrics.message(codec);
                (consumed, self.submit(EntryKind::Message, imei, None, data(unread, consumed), now))
            }
        };
        self.budget = None;
        (consumed, next)
    }

    /// An item is incomplete: `present` bytes of `total` are there. A long one needs its share of memory for what it may read
    /// next, twice what has come: announcing much costs nothing.
    fn wait(&mut self, total: Option<usize>, present: usize, now: Instant) -> ConnectionState {
        let (Some(total), Some(_)) = (total.filter(|total| *total > READ_LEN), self.session.imei()) else {
            return ConnectionState::Reading { missing: total.map(|total| total - present) };
        };
        let held = self.budget.as_ref().map_or(0, Budget::bytes);
        let end = total.min((2 * present).max(READ_LEN).max(held));
        if end > held {
            let Some(more) = self.gateway.intake.try_reserve_under_way(end - held) else {
                let room = room::for_bytes(&self.gateway.intake, end - held, total - held);
                return ConnectionState::Blocked { room, since: now };
            };
            self.add_budget(more);
        }
        ConnectionState::Reading { missing: Some(end - present) }
    }

    fn add_budget(&mut self, more: Budget) {
        match &mut self.budget {
            Some(budget) => budget.add(more),
            none => *none = Some(more),
        }
    }

    /// Lets a device in, or returns the end of its session.
    fn log_in(&mut self, imei: Imei, now: Instant) -> Option<ConnectionState> {
        if self.session.imei().is_none()
            && let Err(reason) = self.admit(imei, now)
        {
            tracing::debug!(%imei, session = self.number, %reason, "tracker turned away");
            return Some(ConnectionState::closing(reason, now));
        }
        self.session.admit(imei);
        self.gateway.metrics.login(LoginResult::Accepted);
        self.answers.push_bytes(&reply::LOGIN_ACCEPTED, now);
        if self.socket.is_none() {
            let (socket, before) = Sockets::enter(&self.gateway.sockets, imei, self.number);
            self.socket = Some(socket);
            // `before` is an older socket of the tracker that is still open.
            tracing::debug!(%imei, session = self.number, before, "tracker logged in");
        }
        None
    }

    /// Whether the device is registered, if it has to be.
    fn admit(&mut self, imei: Imei, now: Instant) -> Result<(), CloseReason> {
        let gateway = self.gateway;
        let Some(admission) = gateway.admission.as_deref() else { return Ok(()) };
        // Before the decision: a list that changes in between is noticed.
        let registered = RegisteredSession::new(admission, imei, self.number);
        let (result, reason) = match admission.decide(imei) {
            LoginDecision::Accepted => {
                self.registered = Some(registered);
                return Ok(());
            }
            LoginDecision::Unknown => {
                admission.note_unknown(imei, self.peer);
                self.answers.push_bytes(&reply::LOGIN_REFUSED, now);
                (LoginResult::Unknown, CloseReason::UnknownDevice)
            }
            // The device may well be registered, and a refusal could keep its tracker away for long.
            LoginDecision::NeverKnown => (LoginResult::AdmissionUnknown, CloseReason::AdmissionUnknown),
        };
        gateway.metrics.login(result);
        Err(reason)
    }

    /// Hands over a frame whose checksum is right and whose content is not. It is kept for the operator, and
    /// acknowledged with the count that it names.
    fn submit_undecodable(
        &mut self,
        imei: Imei,
        rejection: Rejection,
        data: &[u8],
        now: Instant,
    ) -> Option<ConnectionState> {
        let codec = data.first().copied();
        self.gateway.metrics.undecodable(FrameCodec::of(codec), rejection.reason);
        if let Some(left_out) = self.gateway.log_limits.undecodable.allow() {
            tracing::error!(
                session = self.number, codec, reason = %rejection.reason, offset = rejection.offset, left_out,
                "a frame with a right checksum cannot be decoded; it goes to quarantine: {}", rejection.detail
            );
        }
        tracing::debug!(%imei, session = self.number, "sent by this tracker");
        // Messages are never answered with a count.
        let is_message = codec.and_then(MessageCodec::from_id).is_some();
        let records = if is_message { None } else { Some(data.get(1).copied().unwrap_or(0)) };
        self.submit(EntryKind::Undecodable, imei, records, data, now)
    }

    /// Hands an entry over. One with a count is answered with its receipt. Returns a state if there is no room for it.
    fn submit(
        &mut self,
        kind: EntryKind,
        imei: Imei,
        records: Option<u8>,
        bytes: &[u8],
        now: Instant,
    ) -> Option<ConnectionState> {
        let received_at_us = (self.gateway.wall)();
        let entry = NewEntry { kind, imei, received_at_us, records: records.unwrap_or(0), bytes };
        match self.gateway.intake.try_submit(&entry) {
            Ok(receipt) => {
                // Nobody waits for a message.
                if records.is_some() {
                    self.answers.push_receipt(receipt, now);
                }
                None
            }
            Err(SubmitError::Closed) => Some(ConnectionState::closing(CloseReason::Stopping, now)),
            Err(SubmitError::NoRoom) => {
                let (bytes, budget) = (bytes.to_vec(), self.budget.take());
                let entry = BlockedEntry { kind, imei, records, received_at_us, bytes, budget, complete: now };
                Some(ConnectionState::Blocked { room: entry.submit(&self.gateway.intake), since: now })
            }
        }
    }

    /// Counts and logs what ends the session unanswered.
    fn refuse(&self, reason: CloseReason, rejection: Option<Rejection>, unread: &[u8]) {
        match (self.session.imei(), rejection) {
            (None, _) => {
                self.gateway.metrics.login(LoginResult::NoLogin);
                if let Some(looks_like) = stranger::looks_like(unread)
                    && let Some(left_out) = self.gateway.log_limits.strangers.allow()
                {
                    let peer = self.peer.map(tracing::field::display);
                    tracing::warn!(
                        session = self.number,
                        peer,
                        looks_like,
                        left_out,
                        "this peer is not a tracker: it speaks another protocol on the port for trackers"
                    );
                }
            }
            (Some(imei), Some(rejection)) => {
                self.gateway.metrics.refused(rejection.reason);
                if let Some(left_out) = self.gateway.log_limits.refused.allow() {
                    let peer = self.peer.map(tracing::field::display);
                    tracing::warn!(
                        session = self.number, peer, reason = %rejection.reason, offset = rejection.offset, left_out,
                        "frame refused: {}", rejection.detail
                    );
                }
                tracing::debug!(%imei, session = self.number, "sent by this tracker");
                if let (CloseReason::CrcMismatch, Some(crc_dump)) = (reason, &self.gateway.crc_dump) {
                    crc_dump.keep(unread);
                }
            }
            (Some(_), None) => {}
        }
    }

    /// Goes on after a wait for room. The peer is not charged for the time that it waited for us.
    pub(super) fn resume(&mut self, grant: RoomGrant, waited: Duration) {
        self.session.extend_deadline(waited);
        match grant {
            RoomGrant::Submitted(receipt, complete) => self.answers.push_receipt(receipt, complete),
            RoomGrant::Message => {}
            RoomGrant::Reserved(budget) => self.add_budget(budget),
        }
    }

    /// Takes the answers that are ready, as far as no earlier one is missing.
    pub(super) fn ready_answers(&mut self, context: &mut Context<'_>) -> Result<Option<ReadyAnswers>, IntakeClosed> {
        self.answers.ready(context)
    }

    /// Whether newer sockets of the device took the place of this one. Otherwise `waker` is woken when they do.
    pub(super) fn is_replaced(&self, waker: &Waker) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.is_replaced(waker))
    }

    /// Counts answers that were written at `now`, and begins the peer's time again.
    pub(super) fn answered(&mut self, answers: &ReadyAnswers, now: Instant) {
        let Gateway { tally, metrics, .. } = self.gateway;
        tally.acknowledged(answers.records);
        answers.since().for_each(|since| metrics.ack_latency.record(now.saturating_duration_since(since)));
        self.session.restart_deadline(now);
    }

    /// Whether the device may still send. Otherwise `waker` is woken when it may not any more.
    pub(super) fn is_registered(&mut self, waker: &Waker) -> bool {
        self.registered.as_mut().is_none_or(|registered| registered.is_registered(waker))
    }

    /// Whether the tracker has every answer.
    pub(super) fn is_answered(&self) -> bool {
        self.answers.is_empty()
    }

    /// Whether the tracker has to wait for answers before it may send more.
    pub(super) fn is_full(&self) -> bool {
        self.answers.is_full()
    }

    /// Since when the first answer is due.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.answers.since()
    }

    /// When the peer has to have sent more, and what the end is called otherwise.
    pub(super) fn deadline(&self) -> (Instant, CloseReason) {
        self.session.deadline()
    }

    /// The device, once it is logged in.
    pub(super) fn imei(&self) -> Option<Imei> {
        self.session.imei()
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::sync::mpsc;

    use super::super::metrics::GatewayMetrics;
    use super::super::session::Timeouts;
    use super::*;
    use crate::ingest::intake::{Intake, QueuedFrame};
    use crate::metrics::Registry;

    const IMEI: &[u8] = b"\0\x0f356307042441013";
    /// One record of Codec 8 from the vendor's documentation.
    const FRAME: [u8; 66] =
        *b"\0\0\0\0\0\0\0\x36\x08\x01\0\0\x01\x6b\x40\xd8\xea\x30\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\
        \x05\x02\x15\x03\x01\x01\x01\x42\x5e\x0f\x01\xf1\0\0\x60\x1a\x01\x4e\0\0\0\0\0\0\0\0\x01\0\0\xc7\xcf";

    fn gateway(inflight_max: u32) -> (Gateway, mpsc::Receiver<QueuedFrame>) {
        let registry = Registry::new();
        let (intake, mut queues) = Intake::commit(1, inflight_max, registry.tally());
        let hour = Duration::from_hours(1);
        let timeouts = Timeouts { login: hour, frame: hour, idle: hour };
        let gateway =
            Gateway::new(intake, timeouts, GatewayMetrics::new(&registry), registry.tally(), None, None, || 0);
        (gateway, queues.remove(0))
    }

    fn logged_in(gateway: &Gateway) -> Handover<'_> {
        let mut handover = Handover::new(gateway, None, 1, Instant::now());
        let (taken, state) = handover.take_items(IMEI);
        assert!(taken == IMEI.len() && matches!(state, ConnectionState::Reading { missing: None }));
        handover
    }

    async fn granted(state: ConnectionState) -> RoomGrant {
        let ConnectionState::Blocked { room, .. } = state else { panic!("it is not blocked") };
        room.await.unwrap()
    }

    #[tokio::test]
    async fn a_frame_without_room_is_handed_over_once_there_is_some() {
        let (gateway, mut queue) = gateway(500);
        let mut handover = logged_in(&gateway);
        let all = gateway.intake.try_reserve(500).unwrap();
        let (taken, state) = handover.take_items(&[FRAME, FRAME].concat());
        assert_eq!(taken, FRAME.len(), "the second frame stays in the buffer");
        assert!(queue.try_recv().is_err());
        drop(all);
        handover.resume(granted(state).await, Duration::ZERO);
        assert_eq!(queue.try_recv().unwrap().records(), 1);
        let answers = poll_fn(|context| Poll::Ready(handover.ready_answers(context))).await.unwrap_err();
        assert_eq!(answers, IntakeClosed, "a frame that is dropped gets no answer");
    }

    #[tokio::test]
    async fn a_long_item_is_not_read_before_it_has_its_budget() {
        let (gateway, _queue) = gateway(8_000);
        let mut handover = logged_in(&gateway);
        let most = gateway.intake.try_reserve(4_000).unwrap();
        // Preamble, a length of 5,000, and the codec.
        let head = b"\0\0\0\0\0\0\x13\x88\x08";
        let (taken, state) = handover.take_items(head);
        assert_eq!(taken, 0);
        drop(most);
        handover.resume(granted(state).await, Duration::ZERO);
        let (_, state) = handover.take_items(head);
        assert!(matches!(state, ConnectionState::Reading { missing: Some(missing) } if missing == 5_012 - head.len()));
    }

    #[tokio::test]
    async fn a_tracker_that_does_not_wait_leaves_items_in_the_buffer() {
        let (gateway, _queue) = gateway(1 << 20);
        let mut handover = logged_in(&gateway);
        let many = FRAME.repeat(100);
        let (taken, state) = handover.take_items(&many);
        assert!(handover.is_full() && taken < many.len() && matches!(state, ConnectionState::Buffered));
    }
}
