//! Between gateway and drain: entries one way, receipts the other.
//!
//! Only two things make a [`Receipt`]: the journal after its sync, and the commit gate after the commit of the batch. Writing
//! the ACK consumes it and takes the count from it: acknowledging early, twice or with another count does not compile. Bytes in
//! memory are bounded over all sessions: at the bound, sockets are not read. Nothing is dropped to make room.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use teltonika_codecs::{Imei, reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::ingest::drain::lane_of;
use crate::metrics::Tally;
use crate::store::Committed;
use odograph_journal;
use odograph_journal::{AppendError, Appender, EntryKind, NewEntry};

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

impl From<odograph_journal::Receipt> for Receipt {
    fn from(receipt: odograph_journal::Receipt) -> Self {
        Self { records: receipt.into_records() }
    }
}

/// An entry on its way into the database without a journal. Dropping it without settling leaves the tracker unanswered, and
/// it resends.
#[derive(Debug)]
pub struct QueuedFrame {
    /// What the bytes are.
    pub kind: EntryKind,
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

impl QueuedFrame {
    /// Records in the frame.
    #[must_use]
    pub fn records(&self) -> u8 {
        self.records
    }

    /// The entry that it would be in a journal.
    #[must_use]
    pub fn entry(&self) -> NewEntry<'_> {
        let Self { kind, imei, received_at_us, ref data, records, .. } = *self;
        NewEntry { kind, imei, received_at_us, records, bytes: data }
    }

    /// Issues the receipt; only a store makes the proof. A session that has ended meanwhile does not mind: the tracker
    /// resends, keys take care of it.
    pub fn settle(self, _proof: &Committed) {
        let _ = self.answer.send(Receipt { records: self.records });
    }
}

/// Becomes the receipt of one entry. Dropping it does not take the entry back.
#[derive(Debug)]
#[must_use = "an entry is acknowledged with the receipt that it becomes"]
pub struct PendingReceipt(Proof);

#[derive(Debug)]
enum Proof {
    Sync(odograph_journal::Ticket),
    Commit(oneshot::Receiver<Receipt>),
}

/// Nothing is accepted any more, and what has no receipt gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has ended")]
pub struct Closed;

impl Future for PendingReceipt {
    type Output = Result<Receipt, Closed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.0 {
            Proof::Sync(ticket) => ready!(Pin::new(ticket).poll(context)).map(Receipt::from).map_err(|_| Closed),
            Proof::Commit(answer) => ready!(Pin::new(answer).poll(context)).map_err(|_| Closed),
        })
    }
}

/// A share of the bytes that may be in memory; given back when it is dropped.
#[derive(Debug)]
pub struct Budget(OwnedSemaphorePermit);

impl Budget {
    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.num_permits()
    }
}

/// The gateway's end: hands entries over and answers with receipts.
#[derive(Clone, Debug)]
pub struct Intake {
    route: Route,
    budget: Arc<Semaphore>,
    tally: Arc<Tally>,
}

#[derive(Clone, Debug)]
enum Route {
    Journal(Appender),
    Commit(Arc<[mpsc::Sender<QueuedFrame>]>),
}

/// Why an entry was not taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// There is no room now: [`Intake::submit`] waits.
    NoRoom,
    /// There never will be.
    Closed,
}

impl Intake {
    /// Receipts after the journal's sync. `inflight_max` bounds bytes in memory.
    #[must_use]
    pub fn journal(appender: Appender, inflight_max: u32, tally: Arc<Tally>) -> Self {
        Self::new(Route::Journal(appender), inflight_max, tally)
    }

    /// Receipts after the commit, and the drain's end for each lane.
    #[must_use]
    pub fn commit(lanes: u16, inflight_max: u32, tally: Arc<Tally>) -> (Self, Vec<mpsc::Receiver<QueuedFrame>>) {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..lanes).map(|_| mpsc::channel(QUEUE_LEN)).unzip();
        (Self::new(Route::Commit(senders.into()), inflight_max, tally), inboxes)
    }

    fn new(route: Route, inflight_max: u32, tally: Arc<Tally>) -> Self {
        let most = usize::try_from(inflight_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { route, budget: Arc::new(Semaphore::new(most)), tally }
    }

    /// A share of the bytes in memory, if there is one now.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Budget> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.budget).try_acquire_many_owned(bytes).ok().map(Budget)
    }

    /// Waits until `bytes` more may be in memory.
    ///
    /// # Errors
    /// Never; the bound lives as long as this.
    pub async fn reserve(&self, bytes: usize) -> Result<Budget, Closed> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.budget).acquire_many_owned(bytes).await.map(Budget).map_err(|_| Closed)
    }

    /// Hands an entry over, if that needs no waiting.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing was taken then.
    pub fn try_submit(&self, entry: &NewEntry<'_>) -> Result<PendingReceipt, SubmitError> {
        match &self.route {
            // Its bytes go into the journal's own buffer, which is bounded.
            Route::Journal(appender) => {
                let ticket = self.tally.journaled(entry.records, || appender.try_append(entry));
                ticket.map(|ticket| PendingReceipt(Proof::Sync(ticket))).map_err(|wrong| match wrong {
                    AppendError::NoRoom => SubmitError::NoRoom,
                    _ => SubmitError::Closed,
                })
            }
            Route::Commit(lanes) => {
                let place = lane_in(lanes, entry.imei).try_reserve().map_err(|wrong| match wrong {
                    mpsc::error::TrySendError::Full(()) => SubmitError::NoRoom,
                    mpsc::error::TrySendError::Closed(()) => SubmitError::Closed,
                })?;
                let budget = self.try_reserve(entry.bytes.len()).ok_or(SubmitError::NoRoom)?;
                Ok(self.send(place, entry, budget))
            }
        }
    }

    /// Hands an entry over, after waiting for room. Dropped before it completes, nothing was taken.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn submit(&self, entry: &NewEntry<'_>, budget: Budget) -> Result<PendingReceipt, Closed> {
        match &self.route {
            Route::Journal(appender) => loop {
                match self.tally.journaled(entry.records, || appender.try_append(entry)) {
                    Ok(ticket) => return Ok(PendingReceipt(Proof::Sync(ticket))),
                    Err(AppendError::NoRoom) => appender.room(entry.stored_len()).await,
                    Err(_) => return Err(Closed),
                }
            },
            Route::Commit(lanes) => {
                let place = lane_in(lanes, entry.imei).reserve().await.map_err(|_| Closed)?;
                Ok(self.send(place, entry, budget))
            }
        }
    }

    fn send(&self, place: mpsc::Permit<'_, QueuedFrame>, entry: &NewEntry<'_>, budget: Budget) -> PendingReceipt {
        let (answer, receipt) = oneshot::channel();
        let NewEntry { kind, imei, received_at_us, records, bytes } = *entry;
        let data = Bytes::copy_from_slice(bytes);
        let frame = QueuedFrame { kind, imei, received_at_us, data, records, answer, _budget: budget };
        let Ok(()) = self.tally.journaled(records, || {
            place.send(frame);
            Ok::<_, std::convert::Infallible>(())
        });
        PendingReceipt(Proof::Commit(receipt))
    }
}

fn lane_in(lanes: &[mpsc::Sender<QueuedFrame>], imei: Imei) -> &mpsc::Sender<QueuedFrame> {
    let count = u16::try_from(lanes.len()).unwrap_or(u16::MAX);
    &lanes[usize::from(lane_of(imei, count))]
}

/// Frames between gateway and a lane; bytes are bounded separately. A full queue makes sessions wait.
const QUEUE_LEN: usize = 65_536;
