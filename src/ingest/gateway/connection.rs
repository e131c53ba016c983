//! The socket around a session: bytes in, entries to the intake, answers out. Every wait has a bound.
//!
//! One poll function over plain state, so that a connection that waits holds neither a buffer nor a timer of its own for each
//! wait. Bytes are read into memory that all sessions of a thread share; only what is incomplete is kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::answers::AnswerQueue;
use super::handover::{RoomGrant, RoomWait};
use super::sockets::SocketEntry;
use super::{CloseReason, Gateway, Session};
use crate::ingest::admission::RegisteredSession;
use crate::ingest::intake::Budget;

/// Serves one connection to its end; `number` names it in the log, and `peer` in the list of those who were refused. Dropping
/// the future closes the connection; what was handed over goes on.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: Option<IpAddr>,
    number: u64,
    gateway: &Gateway,
    stop: &CancellationToken,
) -> CloseReason {
    let now = Instant::now();
    let mut connection = Connection {
        stream,
        peer,
        number,
        gateway,
        session: Session::new(gateway.timeouts, now),
        place: None,
        seat: None,
        buffer: Vec::new(),
        missing: None,
        unworked: false,
        budget: None,
        blocked: None,
        answers: AnswerQueue::default(),
        outgoing: Vec::new(),
        since: now,
        closing: None,
        stopping: false,
    };
    let reason = {
        let (deadline, _) = connection.deadline();
        let mut sleep = pin!(sleep_until(deadline));
        let mut stopped = pin!(stop.cancelled());
        poll_fn(|context| {
            if !connection.stopping && stopped.as_mut().poll(context).is_ready() {
                connection.stop();
            }
            connection.poll(context, sleep.as_mut())
        })
        .await
    };
    if reason.parts_in_order() {
        connection.part().await;
    }
    if reason.refuses_data() {
        tracing::warn!(session = number, %reason, "session refused data and was closed");
    }
    let imei = connection.session.imei().map(tracing::field::display);
    tracing::debug!(session = number, imei, %reason, "session ended");
    reason
}

pub(super) struct Connection<'a, S> {
    stream: S,
    pub(super) peer: Option<IpAddr>,
    pub(super) number: u64,
    pub(super) gateway: &'a Gateway,
    pub(super) session: Session,
    pub(super) place: Option<SocketEntry>,
    /// That the device is registered, where it has to be.
    pub(super) seat: Option<RegisteredSession<'a>>,
    /// Unread bytes; without memory while there are none.
    buffer: Vec<u8>,
    /// How many bytes the item at their head lacks; `None` where that is not known, or they were not looked at yet.
    pub(super) missing: Option<usize>,
    /// Whole items may stand in the buffer, for which there was no room.
    pub(super) unworked: bool,
    /// For an item that is under way.
    pub(super) budget: Option<Budget>,
    /// There is no room for what came; the socket is not read meanwhile.
    pub(super) blocked: Option<RoomWait>,
    pub(super) answers: AnswerQueue,
    /// Answers that the socket did not take yet.
    outgoing: Vec<u8>,
    /// Since when it has been blocked, or does not take answers.
    pub(super) since: Instant,
    /// It ends for this reason once everything is answered.
    pub(super) closing: Option<CloseReason>,
    stopping: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    fn poll(&mut self, context: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<CloseReason> {
        loop {
            if self.closing.is_none() && self.seat.as_mut().is_some_and(|seat| !seat.is_registered(context.waker())) {
                self.dismiss();
            }
            if let Err(reason) = self.answer(context) {
                return Poll::Ready(reason);
            }
            if let Some(blocked) = &mut self.blocked
                && let Poll::Ready(unblocked) = blocked.as_mut().poll(context)
            {
                self.blocked = None;
                self.unblocked(unblocked);
                continue;
            }
            let idle = self.answers.is_empty() && self.outgoing.is_empty() && self.blocked.is_none();
            if let Some(reason) = self.closing.filter(|_| idle) {
                return Poll::Ready(reason);
            }
            if self.takes_more() {
                if self.unworked {
                    self.work_off();
                    continue;
                }
                match self.read(context) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(reason)) => return Poll::Ready(reason),
                    Poll::Pending => {}
                }
            }
            // Armed again only when it has run out, or when patience has become shorter.
            let (deadline, overdue) = self.deadline();
            if deadline < sleep.deadline() {
                sleep.as_mut().reset(deadline);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= deadline {
                return Poll::Ready(overdue);
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// Whether the socket is read: at the bounds it is not, and TCP holds the peer.
    fn takes_more(&self) -> bool {
        self.closing.is_none() && self.blocked.is_none() && self.outgoing.is_empty() && !self.answers.is_full()
    }

    /// When patience ends if nothing comes, and what the end will be called.
    fn deadline(&self) -> (Instant, CloseReason) {
        if !self.outgoing.is_empty() {
            return (self.since + WRITE_PATIENCE, CloseReason::WriteTimeout);
        }
        let blocked = self.blocked.as_ref().map(|_| self.since);
        match (self.answers.since().or(blocked), self.closing) {
            (Some(since), None) => (since + RECEIPT_PATIENCE, CloseReason::NoReceipt),
            // Most of those that sent their end are gone; some want the answer.
            (Some(since), Some(reason)) => (since.max(self.since) + self.gateway.timeouts.frame, reason),
            (None, _) => self.session.deadline(),
        }
    }

    /// A stopping service answers what it took, and takes no more.
    fn stop(&mut self) {
        self.stopping = true;
        self.blocked = None;
        self.close(CloseReason::Stopping);
    }

    /// The device is not registered any more: what was handed over is answered, and nothing more is taken.
    fn dismiss(&mut self) {
        self.blocked = None;
        self.close(CloseReason::DeviceRemoved);
    }

    /// Writes the answers that are ready, in the order of the frames.
    fn answer(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        self.flush(context)?;
        if !self.outgoing.is_empty() || self.answers.is_empty() {
            return Ok(());
        }
        let Some(answers) = self.answers.ready(context).map_err(|_| CloseReason::Stopping)? else { return Ok(()) };
        let bytes = answers.bytes();
        let wrote = self.write(context, bytes)?;
        let now = Instant::now();
        let gateway = self.gateway;
        gateway.tally.acknowledged(answers.records);
        answers.since().for_each(|since| gateway.metrics.ack_latency.record(now.saturating_duration_since(since)));
        self.session.answered(now);
        if wrote < bytes.len() {
            self.outgoing.extend_from_slice(bytes.get(wrote..).unwrap_or_default());
            self.since = now;
            self.flush(context)?;
        }
        Ok(())
    }

    /// Writes as much as the socket takes now; where that is nothing, it says when it takes more.
    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Result<usize, CloseReason> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => Ok(0),
            Poll::Ready(wrote) => wrote.map_err(|_| CloseReason::ConnectionLost),
        }
    }

    /// Writes what the socket did not take before.
    fn flush(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        while !self.outgoing.is_empty() {
            let mut outgoing = std::mem::take(&mut self.outgoing);
            let wrote = self.write(context, &outgoing)?;
            if wrote < outgoing.len() {
                outgoing.drain(..wrote);
                self.outgoing = outgoing;
            }
            if wrote == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Reads what is there and works it off.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        SCRATCH.with_borrow_mut(|scratch| {
            // No more than the item under way lacks, as its length was checked, and room was found for it.
            let most = self.missing.map_or(READ_LEN, |missing| missing.min(SCRATCH_LEN));
            let mut into = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
            let read = match Pin::new(&mut self.stream).poll_read(context, &mut into) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(CloseReason::ConnectionLost)),
                Poll::Ready(Ok(())) => into.filled(),
            };
            if read.is_empty() {
                self.close(CloseReason::PeerClosed);
                return Poll::Ready(Ok(()));
            }
            self.gateway.metrics.received_bytes.increment(read.len() as u64);
            if self.buffer.is_empty() {
                let consumed = self.take_items(read);
                self.keep(read.get(consumed..).unwrap_or_default());
            } else {
                self.buffer.extend_from_slice(read);
                match &mut self.missing {
                    Some(missing) if *missing > read.len() => *missing -= read.len(),
                    _ => self.work_off(),
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Takes every whole item from the buffer.
    fn work_off(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let consumed = self.take_items(&buffer);
        if consumed == buffer.len() {
            return;
        }
        buffer.drain(..consumed);
        if let Some(missing) = self.missing {
            buffer.reserve_exact(missing);
        }
        self.buffer = buffer;
    }

    /// Keeps what no item was made of, in memory of just the length that the item needs.
    fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.buffer = Vec::with_capacity(rest.len() + self.missing.unwrap_or(0));
            self.buffer.extend_from_slice(rest);
        }
    }

    fn unblocked(&mut self, unblocked: RoomGrant) {
        self.session.excuse(self.since.elapsed());
        match unblocked {
            RoomGrant::Submitted(Ok((pending, since))) => self.answers.receipt(pending, since),
            RoomGrant::Message(Ok(())) => {}
            RoomGrant::Reserved(Ok(budget)) => self.budget = Some(budget),
            RoomGrant::Submitted(Err(_)) | RoomGrant::Message(Err(_)) | RoomGrant::Reserved(Err(_)) => {
                self.close(CloseReason::Stopping);
            }
        }
    }

    /// Ends in good order: closing with unread bytes would reset the connection and could take the last ACK with it.
    async fn part(&mut self) {
        let _ = self.stream.shutdown().await;
        let _ = timeout(PARTING, async {
            let mut unread = [0; 512];
            while self.stream.read(&mut unread).await.is_ok_and(|read| read > 0) {}
        })
        .await;
    }
}

impl<S> Connection<'_, S> {
    pub(super) fn close(&mut self, reason: CloseReason) {
        if self.closing.is_none() {
            (self.closing, self.since) = (Some(reason), Instant::now());
        }
    }
}

thread_local! {
    /// Where all sessions of this thread read into, one after the other.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_LEN]);
}

/// Longer than any item, so that a socket that was read empty is known to be.
const SCRATCH_LEN: usize = 128 * 1024;
/// Bytes asked for in one read: the largest field frames fit three times. What is behind a frame that finds no room is kept,
/// so it is not more. A frame of up to this length needs no share of the bytes in memory while it comes in: any peer could
/// announce one.
pub(super) const READ_LEN: usize = 4096;
/// The longest response timeout that a tracker can be set to is 300 s (section 1.6): after it nobody listens.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(310);
/// An answer of a few bytes fits any socket buffer; a peer that does not take it for so long is stuck.
const WRITE_PATIENCE: Duration = Duration::from_secs(15);
const PARTING: Duration = Duration::from_secs(1);
