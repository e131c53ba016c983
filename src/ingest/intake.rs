//! The intake is between gateway and drain: entries go in, receipts come back.
//!
//! There are two routes. An entry goes to the journal, whose sync makes the [`Receipt`]. Or it goes to its lane
//! directly, and the commit of its batch makes the receipt. Nothing else can make one. Writing the ACK consumes the
//! receipt and takes the count from it: code that acknowledges early, twice or with another count does not compile.
//!
//! Bytes in memory are bounded over all sessions. At the bound, sockets are not read. Nothing is dropped to make room.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use teltonika_codecs::{ENVELOPE_LEN, Imei, MAX_MESSAGE_DATA, reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::lane::lane_of;
use crate::metrics::Tally;
use crate::store::Committed;
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

/// An entry on its way to the database without a journal. If it is dropped before it is settled, the tracker gets no
/// answer and sends the frame again.
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
    /// How many records the frame has.
    #[must_use]
    pub fn records(&self) -> u8 {
        self.records
    }

    /// The same entry as a journal would hold it.
    #[must_use]
    pub fn entry(&self) -> NewEntry<'_> {
        let Self { kind, imei, received_at_us, ref data, records, .. } = *self;
        NewEntry { kind, imei, received_at_us, records, bytes: data }
    }

    /// Issues the receipt. Only a store makes the proof. If the session has ended meanwhile, the tracker sends the
    /// frame again, and the keys of its records keep them from being stored twice.
    pub fn settle(self, _proof: &Committed) {
        let _ = self.answer.send(Receipt { records: self.records });
    }
}

/// Completes with the receipt of one entry. Dropping it does not take the entry back.
#[derive(Debug)]
#[must_use = "an entry is acknowledged with the receipt that this completes with"]
pub struct PendingReceipt(ReceiptSource);

#[derive(Debug)]
enum ReceiptSource {
    /// The sync of the journal.
    Sync(odograph_journal::Ticket),
    /// The commit of the batch.
    Commit(oneshot::Receiver<Receipt>),
}

/// The intake takes no more entries, and an entry without a receipt gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has ended")]
pub struct IntakeClosed;

impl Future for PendingReceipt {
    type Output = Result<Receipt, IntakeClosed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.0 {
            ReceiptSource::Sync(ticket) => {
                ready!(Pin::new(ticket).poll(context)).map(Receipt::from).map_err(|_| IntakeClosed)
            }
            ReceiptSource::Commit(answer) => ready!(Pin::new(answer).poll(context)).map_err(|_| IntakeClosed),
        })
    }
}

/// A share of the bytes that may be in memory; dropping it gives them back.
#[derive(Debug, Default)]
pub struct Budget {
    bytes: Option<OwnedSemaphorePermit>,
    /// The same bytes, as a part of those for items under way.
    under_way: Option<OwnedSemaphorePermit>,
    /// Bytes that let an item end although there is no share for it.
    last_resort: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let permits =
            |share: &Option<OwnedSemaphorePermit>| share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        permits(&self.bytes) + permits(&self.last_resort)
    }

    /// Makes one share of two.
    pub fn add(&mut self, more: Self) {
        let Self { bytes, under_way, last_resort } = more;
        for (held, more) in
            [(&mut self.bytes, bytes), (&mut self.under_way, under_way), (&mut self.last_resort, last_resort)]
        {
            match (held, more) {
                (Some(held), Some(more)) => held.merge(more),
                (held, Some(more)) => *held = Some(more),
                (_, None) => {}
            }
        }
    }
}

/// The gateway's end of the intake.
#[derive(Clone, Debug)]
pub struct Intake {
    route: Route,
    budget: Arc<Semaphore>,
    /// The part of it that incomplete items may take: the others are for those that can be answered.
    under_way: Arc<Semaphore>,
    /// Room for one item: of many that wait for a larger share, one after the other ends and gives its share back.
    last_resort: Arc<Semaphore>,
    tally: Arc<Tally>,
}

/// Where entries go.
#[derive(Clone, Debug)]
enum Route {
    /// To the journal.
    Journal(Appender),
    /// To the lanes, each with its own queue.
    Commit(Arc<[mpsc::Sender<QueuedFrame>]>),
}

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// There is no room now: [`Intake::submit`] waits.
    NoRoom,
    /// There will be no room any more.
    Closed,
}

impl Intake {
    /// An intake whose receipts follow the sync of the journal. `inflight_max` bounds the bytes in memory.
    #[must_use]
    pub fn journal(appender: Appender, inflight_max: u32, tally: Arc<Tally>) -> Self {
        Self::new(Route::Journal(appender), inflight_max, tally)
    }

    /// An intake whose receipts follow the commit, and the queue of each lane for the drain.
    #[must_use]
    pub fn commit(lanes: u16, inflight_max: u32, tally: Arc<Tally>) -> (Self, Vec<mpsc::Receiver<QueuedFrame>>) {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..lanes).map(|_| mpsc::channel(QUEUE_LEN)).unzip();
        (Self::new(Route::Commit(senders.into()), inflight_max, tally), inboxes)
    }

    fn new(route: Route, inflight_max: u32, tally: Arc<Tally>) -> Self {
        let most = usize::try_from(inflight_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let [budget, under_way, last_resort] =
            [most, most / 2, LARGEST_ITEM].map(|bytes| Arc::new(Semaphore::new(bytes)));
        Self { route, budget, under_way, last_resort, tally }
    }

    /// Takes a share of the bytes in memory, if there is one now.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Budget> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.budget).try_acquire_many_owned(bytes).ok()?;
        Some(Budget { bytes: Some(bytes), ..Budget::default() })
    }

    /// Takes a share of the bytes in memory for an item that is incomplete, if there is one now.
    #[must_use]
    pub fn try_reserve_under_way(&self, bytes: usize) -> Option<Budget> {
        let part = u32::try_from(bytes).unwrap_or(u32::MAX);
        let part = Arc::clone(&self.under_way).try_acquire_many_owned(part).ok()?;
        Some(Budget { under_way: Some(part), ..self.try_reserve(bytes)? })
    }

    /// Waits for a share of the bytes in memory for an incomplete item: `next` of them, or all that it lacks.
    ///
    /// # Errors
    /// As [`Intake::reserve`].
    pub async fn reserve_under_way(&self, next: usize, lacking: usize) -> Result<Budget, IntakeClosed> {
        let [next_permits, lacking] = [next, lacking].map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        let share = async {
            let part = Arc::clone(&self.under_way).acquire_many_owned(next_permits).await.map_err(|_| IntakeClosed)?;
            Ok(Budget { under_way: Some(part), ..self.reserve(next).await? })
        };
        tokio::select! {
            biased;
            share = share => share,
            rest = Arc::clone(&self.last_resort).acquire_many_owned(lacking) => {
                Ok(Budget { last_resort: Some(rest.map_err(|_| IntakeClosed)?), ..Budget::default() })
            }
        }
    }

    /// Takes a share of the bytes in memory, after waiting for it.
    ///
    /// # Errors
    /// None in practice: the bound lives as long as the intake.
    pub async fn reserve(&self, bytes: usize) -> Result<Budget, IntakeClosed> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.budget).acquire_many_owned(bytes).await.map_err(|_| IntakeClosed)?;
        Ok(Budget { bytes: Some(bytes), ..Budget::default() })
    }

    /// Takes an entry, if there is room now.
    ///
    /// # Errors
    /// See [`SubmitError`]. The entry was not taken then.
    pub fn try_submit(&self, entry: &NewEntry<'_>) -> Result<PendingReceipt, SubmitError> {
        match &self.route {
            // The journal copies the bytes into its own buffer, which is bounded.
            Route::Journal(appender) => {
                let ticket = self.tally.journaled(entry.records, || appender.try_append(entry));
                ticket.map(|ticket| PendingReceipt(ReceiptSource::Sync(ticket))).map_err(|error| match error {
                    AppendError::NoRoom => SubmitError::NoRoom,
                    AppendError::TooLarge { .. } | AppendError::Closed | AppendError::Poisoned(_) => {
                        SubmitError::Closed
                    }
                })
            }
            Route::Commit(lanes) => {
                let slot = lane_in(lanes, entry.imei).try_reserve().map_err(|error| match error {
                    mpsc::error::TrySendError::Full(()) => SubmitError::NoRoom,
                    mpsc::error::TrySendError::Closed(()) => SubmitError::Closed,
                })?;
                let budget = self.try_reserve(entry.bytes.len() + ENTRY_COST).ok_or(SubmitError::NoRoom)?;
                Ok(self.send(slot, entry, budget))
            }
        }
    }

    /// Takes an entry, after waiting for room. If this is dropped before it completes, the entry was not taken.
    ///
    /// # Errors
    /// [`IntakeClosed`] if the pipeline has ended.
    pub async fn submit(&self, entry: &NewEntry<'_>, budget: Budget) -> Result<PendingReceipt, IntakeClosed> {
        match &self.route {
            Route::Journal(appender) => loop {
                match self.tally.journaled(entry.records, || appender.try_append(entry)) {
                    Ok(ticket) => return Ok(PendingReceipt(ReceiptSource::Sync(ticket))),
                    Err(AppendError::NoRoom) => appender.room(entry.stored_len()).await,
                    Err(_) => return Err(IntakeClosed),
                }
            },
            Route::Commit(lanes) => {
                let slot = lane_in(lanes, entry.imei).reserve().await.map_err(|_| IntakeClosed)?;
                Ok(self.send(slot, entry, budget))
            }
        }
    }

    fn send(&self, slot: mpsc::Permit<'_, QueuedFrame>, entry: &NewEntry<'_>, budget: Budget) -> PendingReceipt {
        let (answer, receipt) = oneshot::channel();
        let NewEntry { kind, imei, received_at_us, records, bytes } = *entry;
        let data = Bytes::copy_from_slice(bytes);
        let frame = QueuedFrame { kind, imei, received_at_us, data, records, answer, _budget: budget };
        let Ok(()) = self.tally.journaled(records, || {
            slot.send(frame);
            Ok::<_, std::convert::Infallible>(())
        });
        PendingReceipt(ReceiptSource::Commit(receipt))
    }
}

/// The queue of the lane that a device belongs to.
fn lane_in(lanes: &[mpsc::Sender<QueuedFrame>], imei: Imei) -> &mpsc::Sender<QueuedFrame> {
    let count = u16::try_from(lanes.len()).unwrap_or(u16::MAX);
    &lanes[usize::from(lane_of(imei, count))]
}

/// What an entry costs in memory beside its bytes, at most: its place in a queue, its answer, or its row of the quarantine
/// with a reason.
pub(crate) const ENTRY_COST: usize = 256;
/// How many frames may wait for a lane. Bytes are bounded separately. If a queue is full, sessions wait.
const QUEUE_LEN: usize = 65_536;
/// The longest item that a session waits for.
const LARGEST_ITEM: usize = MAX_MESSAGE_DATA + ENVELOPE_LEN;
