//! The socket of a session: it reads bytes for the handover and writes its answers. Every wait has a bound.
//!
//! One poll function over plain state: a connection that waits holds neither a buffer nor a timer of its own for each
//! wait. All sessions of a thread read into the same memory, and only what is incomplete is kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::close::CloseReason;
use super::context::Gateway;
use super::handover::Handover;
use super::room::RoomGrant;
use super::session::READ_LEN;
use super::state::ConnectionState;
use crate::ingest::intake::IntakeClosed;

/// Serves one connection to its end. `number` names it in the log, and `peer` in the list of refused devices. Dropping
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
        gateway,
        handover: Handover::new(gateway, peer, number, now),
        state: ConnectionState::Reading { missing: None },
        buffer: Vec::new(),
        outgoing: Vec::new(),
        outgoing_since: now,
        read_in_turn: 0,
    };
    let reason = {
        let (deadline, _) = connection.deadline();
        let mut sleep = pin!(sleep_until(deadline));
        let mut stop = pin!(stop.cancelled());
        let mut stopping = false;
        poll_fn(|context| {
            if !stopping && stop.as_mut().poll(context).is_ready() {
                stopping = true;
                // A stopping service answers what it took, and takes no more.
                connection.close(CloseReason::Stopping);
            }
            connection.poll(context, sleep.as_mut())
        })
        .await
    };
    if reason.closes_gracefully() {
        connection.close_gracefully().await;
    }
    if reason.refuses_data()
        && let Some(left_out) = gateway.log_limits.closed.allow()
    {
        let peer = peer.map(tracing::field::display);
        tracing::warn!(session = number, peer, %reason, left_out, "session refused data and was closed");
    }
    let imei = connection.handover.imei().map(tracing::field::display);
    tracing::debug!(session = number, imei, %reason, "session ended");
    reason
}

/// A connection and what is on its way in either direction.
struct Connection<'a, S> {
    stream: S,
    gateway: &'a Gateway,
    handover: Handover<'a>,
    state: ConnectionState,
    /// Unread bytes; without memory while there are none.
    buffer: Vec<u8>,
    /// Answers that the socket did not take yet.
    outgoing: Vec<u8>,
    /// Since when the socket has not taken them.
    outgoing_since: Instant,
    /// Bytes read since other sessions had their turn.
    read_in_turn: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    /// Answers, takes and reads until it has to wait. `sleep` wakes it at the deadline.
    fn poll(&mut self, context: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<CloseReason> {
        self.read_in_turn = 0;
        loop {
            if !self.state.is_closing() && !self.handover.is_registered(context.waker()) {
                // What was handed over is answered, and nothing more is taken.
                self.close(CloseReason::DeviceRemoved);
            }
            if !self.state.is_closing() && self.handover.is_replaced(context.waker()) {
                self.close(CloseReason::Replaced);
            }
            if let Err(reason) = self.answer(context) {
                return Poll::Ready(reason);
            }
            match self.state {
                ConnectionState::Closing { reason, .. } => {
                    if self.handover.is_answered() && self.outgoing.is_empty() {
                        return Poll::Ready(reason);
                    }
                }
                ConnectionState::Blocked { ref mut room, .. } => {
                    if let Poll::Ready(grant) = room.as_mut().poll(context) {
                        self.resume(grant);
                        continue;
                    }
                }
                ConnectionState::Buffered => {
                    if self.takes_more() {
                        self.take_from_buffer();
                        continue;
                    }
                }
                ConnectionState::Reading { missing } => {
                    if self.read_in_turn >= TURN_LEN {
                        // A peer that sends without pause gets its next turn after all others.
                        context.waker().wake_by_ref();
                    } else if self.takes_more() {
                        match self.read(missing, context) {
                            Poll::Ready(Ok(())) => continue,
                            Poll::Ready(Err(reason)) => return Poll::Ready(reason),
                            Poll::Pending => {}
                        }
                    }
                }
            }
            // Set again only if it has run out, or if the deadline came nearer.
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

    /// Whether answers leave room for more items. If they do not, the socket is not read, and TCP holds the peer.
    fn takes_more(&self) -> bool {
        self.outgoing.is_empty() && !self.handover.is_full()
    }

    /// When the connection ends if nothing happens, and what the end is called.
    fn deadline(&self) -> (Instant, CloseReason) {
        if !self.outgoing.is_empty() {
            return (self.waiting_since() + WRITE_PATIENCE, CloseReason::WriteTimeout);
        }
        match (&self.state, self.handover.unanswered_since()) {
            // Most peers that sent their end are gone; some want the answer.
            (ConnectionState::Closing { reason, .. }, Some(since)) => {
                (since.max(self.waiting_since()) + self.gateway.timeouts.frame, *reason)
            }
            (_, Some(since)) => (since + RECEIPT_PATIENCE, CloseReason::NoReceipt),
            (ConnectionState::Blocked { .. }, None) => {
                (self.waiting_since() + RECEIPT_PATIENCE, CloseReason::NoReceipt)
            }
            (_, None) => self.handover.deadline(),
        }
    }

    /// When the last of its waits began, for the socket or in its state: each one has the whole patience.
    fn waiting_since(&self) -> Instant {
        self.state.waiting_since().map_or(self.outgoing_since, |since| since.max(self.outgoing_since))
    }

    /// Ends it once everything is answered. The first reason counts.
    fn close(&mut self, reason: CloseReason) {
        if !self.state.is_closing() {
            self.state = ConnectionState::closing(reason, Instant::now());
        }
    }

    /// Goes on when there is room, or ends with the intake.
    fn resume(&mut self, grant: Result<RoomGrant, IntakeClosed>) {
        let waited = self.waiting_since().elapsed();
        match grant {
            Ok(grant) => {
                self.handover.resume(grant, waited);
                self.state = ConnectionState::Buffered;
            }
            Err(IntakeClosed) => self.close(CloseReason::Stopping),
        }
    }

    /// Writes the answers that are ready, in the order of the frames.
    fn answer(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        self.flush(context)?;
        if !self.outgoing.is_empty() || self.handover.is_answered() {
            return Ok(());
        }
        let answers = self.handover.ready_answers(context).map_err(|IntakeClosed| CloseReason::Stopping)?;
        let Some(answers) = answers else { return Ok(()) };
        let bytes = answers.bytes();
        let wrote = self.write(context, bytes)?;
        let now = Instant::now();
        self.handover.answered(&answers, now);
        if wrote < bytes.len() {
            self.outgoing.extend_from_slice(bytes.get(wrote..).unwrap_or_default());
            self.outgoing_since = now;
            self.flush(context)?;
        }
        Ok(())
    }

    /// Writes as much as the socket takes now. If that is nothing, the socket wakes the session when it takes more.
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

    /// Reads what is there and takes the whole items.
    fn read(&mut self, missing: Option<usize>, context: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        SCRATCH.with_borrow_mut(|scratch| {
            // No more than the item under way lacks, as its length was checked, and room was found for it.
            let most = missing.map_or(READ_LEN, |missing| missing.min(SCRATCH_LEN));
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
            self.read_in_turn += read.len();
            if self.buffer.is_empty() {
                self.take_or_keep(read);
            } else {
                self.buffer.extend_from_slice(read);
                match missing {
                    Some(missing) if missing > read.len() => {
                        self.state = ConnectionState::Reading { missing: Some(missing - read.len()) };
                    }
                    _ => self.take_from_buffer(),
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Takes every whole item from bytes that were just read. Keeps the rest, in memory of just the length that the
    /// item needs.
    fn take_or_keep(&mut self, read: &[u8]) {
        let (taken, state) = self.handover.take_items(read);
        let rest = read.get(taken..).unwrap_or_default();
        if !rest.is_empty() {
            self.buffer = Vec::with_capacity(rest.len() + state.missing());
            self.buffer.extend_from_slice(rest);
        }
        self.state = state;
    }

    /// Takes every whole item from the buffer.
    fn take_from_buffer(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let (taken, state) = self.handover.take_items(&buffer);
        if taken < buffer.len() {
            buffer.drain(..taken);
            buffer.reserve_exact(state.missing());
            self.buffer = buffer;
        }
        self.state = state;
    }

    /// Reads what the peer still sends, for a while. Closing with unread bytes would reset the connection, and the peer
    /// could lose the last ACK.
    async fn close_gracefully(&mut self) {
        let _ = self.stream.shutdown().await;
        let _ = timeout(CLOSE_PATIENCE, async {
            let mut unread = [0; 512];
            while self.stream.read(&mut unread).await.is_ok_and(|read| read > 0) {}
        })
        .await;
    }
}

thread_local! {
    /// The memory that all sessions of this thread read into, one after the other.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_LEN]);
}

/// Longer than any item, so that a socket that was read empty is known to be.
const SCRATCH_LEN: usize = 128 * 1024;
/// Bytes that a session may read in one turn.
const TURN_LEN: usize = 64 * 1024;
/// The longest response timeout of a tracker is 300 s (section 1.6). After it, nobody listens.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(310);
/// An answer of a few bytes fits any socket buffer. A peer that does not take it for so long is stuck.
const WRITE_PATIENCE: Duration = Duration::from_secs(15);
/// For a peer that goes on sending after the last answer.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
