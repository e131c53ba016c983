//! The receipt of an entry, and the wait for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::error::AppendError;
use super::queue::Queue;

/// Proof that the records of one entry survive a power cut. Only a settled [`Ticket`] makes it. Reading its count consumes it.
#[derive(Debug)]
pub struct Receipt {
    records: u8,
}

impl Receipt {
    /// The count that the entry was appended with, for the acknowledgement.
    #[must_use]
    pub fn into_records(self) -> u8 {
        self.records
    }
}

/// Becomes the receipt of one entry once its group is synced.
#[derive(Debug)]
#[must_use = "an entry is acknowledged with the receipt that its ticket becomes"]
pub struct Ticket {
    queue: Arc<Queue>,
    group: u64,
    records: u8,
    /// The place of its waker in the list of its group.
    slot: Option<usize>,
}

impl Ticket {
    pub(super) fn new(queue: Arc<Queue>, group: u64, records: u8) -> Self {
        Self { queue, group, records, slot: None }
    }
}

impl Future for Ticket {
    type Output = Result<Receipt, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { queue, group, records, slot } = &mut *self;
        let records = *records;
        queue.poll_synced(*group, slot, context).map_ok(|()| Receipt { records })
    }
}
