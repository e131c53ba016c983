//! The wait for room in the intake. Dropped before it completes, nothing was taken.

use std::pin::Pin;

use teltonika_codecs::Imei;
use tokio::time::Instant;

use crate::ingest::intake::{Budget, ENTRY_COST, Intake, IntakeClosed, PendingReceipt};
use odograph_journal::{EntryKind, NewEntry};

/// A wait for room. It allocates, but only sessions that find no room wait.
pub(super) type RoomWait = Pin<Box<dyn Future<Output = Result<RoomGrant, IntakeClosed>> + Send>>;

/// What became of the room.
pub(super) enum RoomGrant {
    /// A frame was handed over that was complete at this time.
    Submitted(PendingReceipt, Instant),
    /// A message was handed over, which nobody answers.
    Message,
    /// An item may be read on.
    Reserved(Budget),
}

/// Waits until `next` bytes more of an item may be read, or all `lacking` ones.
pub(super) fn for_bytes(intake: &Intake, next: usize, lacking: usize) -> RoomWait {
    let intake = intake.clone();
    Box::pin(async move { intake.reserve_under_way(next, lacking).await.map(RoomGrant::Reserved) })
}

/// An entry that the intake had no room for.
pub(super) struct BlockedEntry {
    pub(super) kind: EntryKind,
    pub(super) imei: Imei,
    /// The count to answer with; nobody answers a message.
    pub(super) records: Option<u8>,
    pub(super) received_at_us: i64,
    pub(super) bytes: Vec<u8>,
    /// The share of memory that the item had while it came in.
    pub(super) budget: Option<Budget>,
    /// When the item was complete.
    pub(super) complete: Instant,
}

impl BlockedEntry {
    /// Waits until `intake` has taken the entry.
    pub(super) fn submit(self, intake: &Intake) -> RoomWait {
        let intake = intake.clone();
        Box::pin(async move {
            let Self { kind, imei, records, received_at_us, bytes, budget, complete } = self;
            let entry = NewEntry { kind, imei, received_at_us, records: records.unwrap_or(0), bytes: &bytes };
            let cost = bytes.len() + ENTRY_COST;
            let budget = match budget.filter(|budget| budget.bytes() >= cost) {
                Some(budget) => budget,
                None => intake.reserve(cost).await?,
            };
            let receipt = intake.submit(&entry, budget).await?;
            Ok(if records.is_some() { RoomGrant::Submitted(receipt, complete) } else { RoomGrant::Message })
        })
    }
}
