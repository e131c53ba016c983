//! Where sessions append entries.

use std::sync::Arc;

use super::entry::NewEntry;
use super::error::AppendError;
use super::queue::Queue;
use super::relay::Relay;
use super::room::Room;
use super::ticket::Ticket;

/// The end of the queue that sessions hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Appender {
    queue: Arc<Queue>,
}

impl Appender {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// Takes the entry in if there is room now. The ticket becomes its receipt; dropping it does not take the entry back.
    ///
    /// # Errors
    /// [`AppendError::NoRoom`], and errors that do not pass.
    pub fn try_append(&self, entry: &NewEntry<'_>) -> Result<Ticket, AppendError> {
        let group = self.queue.append(entry)?;
        Ok(Ticket::new(Arc::clone(&self.queue), group, entry.records))
    }

    /// A task for the runtime of the sessions, which makes receipts cheaper.
    pub fn relay(&self) -> Relay {
        Relay::new(Arc::clone(&self.queue))
    }

    /// Takes the entry in, after waiting for room. Dropped before it completes, nothing was taken in.
    ///
    /// # Errors
    /// Never [`AppendError::NoRoom`].
    pub async fn append(&self, entry: NewEntry<'_>) -> Result<Ticket, AppendError> {
        loop {
            match self.try_append(&entry) {
                Err(AppendError::NoRoom) => self.room(entry.stored_len()).await,
                taken => return taken,
            }
        }
    }

    /// Completes when an entry of `stored_len` bytes on disk may be taken in, or none ever will. Another session may be faster:
    /// try, and wait again.
    pub fn room(&self, stored_len: usize) -> Room<'_> {
        Room::new(&self.queue, stored_len)
    }
}
