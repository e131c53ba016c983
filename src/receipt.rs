//! Between gateway and drain: frames one way, receipts the other.
//!
//! A [`Receipt`] cannot be made but from a [`Committed`] batch, and writing the ACK consumes it: acknowledging early, twice
//! or with another count does not compile. Frames in flight are bounded in bytes over all sessions: at the bound,
//! [`CommitGate::reserve`] waits and sockets are not read. Nothing is dropped to make room.

use std::sync::Arc;

use bytes::Bytes;
use teltonika_codecs::{Imei, reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::metrics::Tally;
use crate::store::Committed;

/// Proof that the records of one frame survive a power cut.
#[derive(Debug)]
pub struct Receipt {
    records: u8,
}

impl Receipt {
    /// The acknowledgement to write, and the number of records that it names.
    #[must_use]
    pub fn into_ack(self) -> ([u8; 4], u8) {
        (reply::tcp_ack(self.records), self.records)
    }
}

/// A frame on its way into the database. Dropping it without settling leaves the tracker unanswered, and it resends.
#[derive(Debug)]
pub struct Submission {
    /// The device that sent it.
    pub imei: Imei,
    /// Receive time, microseconds since 1970-01-01 UTC.
    pub received_at_us: i64,
    /// The data field, codec id to second count.
    pub data: Bytes,
    records: u8,
    answer: oneshot::Sender<Receipt>,
    _budget: Budget,
}

impl Submission {
    /// Records in the frame.
    #[must_use]
    pub fn records(&self) -> u8 {
        self.records
    }

    /// Issues the receipt; only a store makes the proof. A session that has ended meanwhile does not mind: the tracker
    /// resends, keys take care of it.
    pub fn settle(self, _proof: &Committed) {
        let _ = self.answer.send(Receipt { records: self.records });
    }
}

/// A share of the bytes that may be in flight; given back when the frame is settled or dropped.
#[derive(Debug)]
pub struct Budget(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The gateway's end: hands frames over and answers with receipts after the commit.
#[derive(Clone, Debug)]
pub struct CommitGate {
    budget: Arc<Semaphore>,
    queue: mpsc::Sender<Submission>,
    tally: Arc<Tally>,
}

/// The drain has ended: nothing is accepted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has ended")]
pub struct Closed;

/// Makes both ends. `inflight_max` bounds the bytes between them.
#[must_use]
pub fn commit_gate(inflight_max: u32, tally: Arc<Tally>) -> (CommitGate, mpsc::Receiver<Submission>) {
    let (queue, inbox) = mpsc::channel(QUEUE_LEN);
    let budget = Arc::new(Semaphore::new(usize::try_from(inflight_max).unwrap_or(Semaphore::MAX_PERMITS)));
    (CommitGate { budget, queue, tally }, inbox)
}

impl CommitGate {
    /// Waits until `bytes` more may be in flight.
    ///
    /// # Errors
    /// [`Closed`] when the drain has ended.
    pub async fn reserve(&self, bytes: u32) -> Result<Budget, Closed> {
        Arc::clone(&self.budget).acquire_many_owned(bytes).await.map(Budget).map_err(|_| Closed)
    }

    /// Hands a frame over. The answer comes after the commit; it fails when the drain ends before.
    ///
    /// # Errors
    /// [`Closed`] when the drain has ended.
    pub async fn submit(
        &self,
        imei: Imei,
        received_at_us: i64,
        data: Bytes,
        records: u8,
        budget: Budget,
    ) -> Result<oneshot::Receiver<Receipt>, Closed> {
        let (answer, receipt) = oneshot::channel();
        let place = self.queue.reserve().await.map_err(|_| Closed)?;
        // Counted before it is handed over: no commit can be counted ahead of it.
        self.tally.journaled(records);
        place.send(Submission { imei, received_at_us, data, records, answer, _budget: budget });
        Ok(receipt)
    }
}

/// Frames between gateway and drain; bytes are bounded separately. A full queue makes sessions wait.
const QUEUE_LEN: usize = 65_536;
