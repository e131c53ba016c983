//! The socket around a session: reads, hands over, waits for receipts, writes answers. Every wait has a bound.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use teltonika_codecs::{AvlData, ENVELOPE_LEN, Imei, reply};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::session::READ_LEN;
use super::{CloseReason, Gateway, Session, Step};
use crate::receipt::Budget;

/// Serves one connection to its end. Dropping the future closes the socket; frames that were handed over go on.
pub(crate) async fn serve(stream: TcpStream, gateway: &Gateway, stop: &CancellationToken) -> CloseReason {
    let session = Session::new(gateway.timeouts, Instant::now());
    let mut connection = Connection { stream, gateway, stop, session, buffer: Vec::new(), ended: false, budget: None };
    let reason = match connection.run().await {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    if reason == CloseReason::Stopping || reason.refuses_data() {
        connection.part().await;
    }
    let Connection { buffer, session, .. } = connection;
    gateway.buffers.give(buffer);
    if reason.refuses_data() {
        tracing::warn!(%reason, "session refused data and was closed");
    } else {
        tracing::debug!(imei = session.imei().map(tracing::field::display), %reason, "session ended");
    }
    reason
}

struct Connection<'a> {
    stream: TcpStream,
    gateway: &'a Gateway,
    stop: &'a CancellationToken,
    session: Session,
    /// Unread bytes; without memory while there are none.
    buffer: Vec<u8>,
    /// The peer has sent all it will.
    ended: bool,
    /// The share of a frame whose length is known but whose bytes are not all here.
    budget: Option<(u32, Budget)>,
}

enum Never {}

impl Connection<'_> {
    async fn run(&mut self) -> Result<Never, CloseReason> {
        loop {
            let total = self.work_off().await?;
            if self.ended {
                return Err(CloseReason::PeerClosed);
            }
            // A login is too small to matter, and has a deadline of its own.
            if let (Some(total), Some(_)) = (total, self.session.imei()) {
                let had = self.buffer.len();
                self.reserve(total).await?;
                // The rest of the item may have come in during a long wait.
                if self.ended || self.buffer.len() > had {
                    continue;
                }
            }
            if self.buffer.is_empty() {
                self.gateway.buffers.give(std::mem::take(&mut self.buffer));
            }
            self.read(total).await?;
        }
    }

    /// Takes every whole item from the buffer; gives the length of the one that is under way.
    async fn work_off(&mut self) -> Result<Option<usize>, CloseReason> {
        // Taken out of `self`, so that items can borrow from it across the waits.
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut at = 0;
        let outcome = loop {
            let unread = buffer.get(at..).unwrap_or_default();
            let consumed = match self.session.step(unread, Instant::now()) {
                // What came in while a receipt was awaited stands in `self.buffer`, behind these bytes.
                Step::Wait { .. } if !self.buffer.is_empty() => {
                    buffer.drain(..at);
                    at = 0;
                    buffer.append(&mut self.buffer);
                    continue;
                }
                Step::Wait { total } => break Ok(total),
                Step::Close { reason, rejection } => {
                    self.refused(reason, rejection);
                    break Err(reason);
                }
                Step::Ping { consumed } => consumed,
                Step::Message { codec, consumed } => {
                    self.gateway.metrics.message(codec);
                    consumed
                }
                Step::Login { imei, consumed } => {
                    self.gateway.metrics.logins_accepted.increment(1);
                    tracing::debug!(%imei, "tracker logged in");
                    if let Err(reason) = self.write(&reply::LOGIN_ACCEPTED).await {
                        break Err(reason);
                    }
                    consumed
                }
                Step::AckNothing { avl, consumed } => {
                    self.gateway.metrics.avl_frame(avl.codec(), 0);
                    if let Err(reason) = self.write(&reply::tcp_ack(0)).await {
                        break Err(reason);
                    }
                    consumed
                }
                Step::Submit { imei, avl, consumed } => {
                    let frame = unread.get(..consumed).unwrap_or_default();
                    if let Err(reason) = self.submit(imei, avl, frame).await {
                        break Err(reason);
                    }
                    consumed
                }
            };
            at += consumed;
            self.budget = None;
            // A stopping service still answers what it took, and takes no more.
            if self.stop.is_cancelled() {
                break Err(CloseReason::Stopping);
            }
        };
        buffer.drain(..at);
        let ahead = std::mem::replace(&mut self.buffer, buffer);
        self.gateway.buffers.give(ahead);
        outcome
    }

    fn refused(&self, reason: CloseReason, rejection: Option<teltonika_codecs::Rejection>) {
        match (self.session.imei(), rejection) {
            (None, _) => self.gateway.metrics.logins_refused.increment(1),
            (Some(imei), Some(rejection)) => {
                self.gateway.metrics.refused(rejection.reason);
                tracing::warn!(reason = %rejection.reason, offset = rejection.offset, "frame refused: {}", rejection.detail);
                tracing::debug!(%imei, reason = %rejection.reason, "frame refused");
            }
            (Some(imei), None) if reason == CloseReason::Unstorable => {
                self.gateway.metrics.frames_unstorable.increment(1);
                tracing::debug!(%imei, %reason, "frame refused");
            }
            (Some(_), None) => {}
        }
    }

    /// Hands a frame over, waits for its receipt and acknowledges.
    async fn submit(&mut self, imei: Imei, avl: AvlData<'_>, frame: &[u8]) -> Result<(), CloseReason> {
        let (complete, received_at_us) = (Instant::now(), now_us());
        self.reserve(frame.len()).await?;
        let Some((_, budget)) = self.budget.take() else { return Err(CloseReason::Stopping) };
        let data = frame.get(ENVELOPE_LEN - CRC_LEN..frame.len() - CRC_LEN).unwrap_or_default();
        let data = Bytes::copy_from_slice(data);
        let gateway = self.gateway;
        gateway.metrics.avl_frame(avl.codec(), avl.count());
        let receipt = self.attended(async {
            let submitted = gateway.gate.submit(imei, received_at_us, data, avl.count(), budget).await;
            // Both ends are gone only when the drain is: nobody will answer any more.
            submitted.ok()?.await.ok()
        });
        let (ack, records) = receipt.await?.ok_or(CloseReason::Stopping)?.into_ack();
        self.write(&ack).await?;
        gateway.tally.acknowledged(records);
        gateway.metrics.ack_latency.record(complete.elapsed());
        Ok(())
    }

    /// Waits for the pipeline, and meanwhile takes what the peer sends as far as the buffer's bound goes. A peer that has
    /// sent its end may still want the answer; but for how long is bounded, for most of them are gone.
    async fn attended<T>(&mut self, pipeline: impl Future<Output = T>) -> Result<T, CloseReason> {
        let mut pipeline = pin!(pipeline);
        let begun = Instant::now();
        let mut patience = begun + RECEIPT_PATIENCE;
        let mut seen_end = false;
        loop {
            if self.ended && !seen_end {
                seen_end = true;
                patience = patience.min(Instant::now() + self.gateway.timeouts.frame);
            }
            let wants_more = !self.ended && self.buffer.len() < AHEAD_LEN;
            tokio::select! {
                biased;
                // Only borrowed: losing the race loses nothing.
                answer = &mut pipeline => {
                    self.session.excuse(begun.elapsed());
                    return Ok(answer);
                }
                // Cancel-safe: readiness loses no bytes.
                ready = self.stream.readable(), if wants_more => {
                    ready.map_err(|_| CloseReason::ConnectionLost)?;
                    self.try_read(AHEAD_LEN)?;
                }
                () = sleep_until(patience.into()) => {
                    return Err(if self.ended { CloseReason::PeerClosed } else { CloseReason::NoReceipt });
                }
            }
        }
    }

    /// Takes a share of the bytes in flight for an item of this length, unless it has one. Until there is one, the
    /// socket is hardly read: that is the back-pressure.
    async fn reserve(&mut self, len: usize) -> Result<(), CloseReason> {
        let bytes = u32::try_from(len).unwrap_or(u32::MAX);
        if self.budget.as_ref().is_some_and(|(held, _)| *held >= bytes) {
            return Ok(());
        }
        self.budget = None;
        let (gateway, stop) = (self.gateway, self.stop);
        let budget = self.attended(async {
            tokio::select! {
                budget = gateway.gate.reserve(bytes) => budget.ok(),
                () = stop.cancelled() => None,
            }
        });
        self.budget = Some((bytes, budget.await?.ok_or(CloseReason::Stopping)?));
        Ok(())
    }

    /// Waits for bytes and reads some, within the session's patience.
    async fn read(&mut self, total: Option<usize>) -> Result<(), CloseReason> {
        let (deadline, overdue) = self.session.deadline();
        tokio::select! {
            biased;
            ready = self.stream.readable() => ready.map_err(|_| CloseReason::ConnectionLost)?,
            () = sleep_until(deadline.into()) => return Err(overdue),
            () = self.stop.cancelled() => return Err(CloseReason::Stopping),
        }
        // Room for the whole item under way: its length was checked before.
        self.try_read(total.unwrap_or(0).max(READ_LEN))
    }

    /// Reads what is there, up to `most` bytes in the buffer. Nothing there is fine.
    fn try_read(&mut self, most: usize) -> Result<(), CloseReason> {
        if self.buffer.capacity() == 0 {
            self.buffer = self.gateway.buffers.take();
        }
        let had = self.buffer.len();
        self.buffer.reserve_exact(most.saturating_sub(had).max(1));
        match self.stream.try_read_buf(&mut self.buffer) {
            Ok(0) => self.ended = true,
            Ok(_) => self.gateway.metrics.received_bytes.increment((self.buffer.len() - had) as u64),
            Err(wrong) if wrong.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(CloseReason::ConnectionLost),
        }
        Ok(())
    }

    async fn write(&mut self, answer: &[u8]) -> Result<(), CloseReason> {
        match timeout(WRITE_PATIENCE, self.stream.write_all(answer)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(CloseReason::ConnectionLost),
            Err(_) => Err(CloseReason::WriteTimeout),
        }
    }

    /// Ends in good order: closing with unread bytes would reset the connection and could take the last ACK with it.
    async fn part(&mut self) {
        let _ = self.stream.shutdown().await;
        let _ = timeout(PARTING, async {
            while !self.ended && self.stream.readable().await.is_ok() {
                self.buffer.clear();
                if self.try_read(READ_LEN).is_err() {
                    return;
                }
            }
        })
        .await;
    }
}

fn now_us() -> i64 {
    // A clock before 1970 or after the year 290,000 is no clock.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Bytes of the CRC behind the data field.
const CRC_LEN: usize = 4;
/// Most bytes read ahead of an answer; a tracker that does not wait is held there by TCP.
const AHEAD_LEN: usize = 2 * READ_LEN;
/// The longest response timeout that a tracker can be set to is 300 s (section 1.6): after it nobody listens.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(310);
/// An answer of a few bytes fits any socket buffer; a peer that does not take it for so long is stuck.
const WRITE_PATIENCE: Duration = Duration::from_secs(15);
const PARTING: Duration = Duration::from_secs(1);
