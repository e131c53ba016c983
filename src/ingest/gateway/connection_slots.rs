//! The connections that are served at once, and whether that is all that may be.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::health::{Health, Reason};
use crate::metrics::Registry;

/// A slot for each connection. While all are taken, further trackers wait in the kernel's queue and get no answer:
/// `connection_limit` says so.
#[derive(Debug)]
pub struct ConnectionSlots {
    permits: Arc<Semaphore>,
    /// The listener waits for a slot.
    waits: Arc<AtomicBool>,
    health: Arc<Health>,
}

impl ConnectionSlots {
    /// `most` slots. Registers the limit as `odograph_connections_max`.
    #[must_use]
    pub fn new(most: usize, registry: &Registry, health: &Arc<Health>) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        registry
            .register(|| gauge!("odograph_connections_max"))
            .set(f64::from(u32::try_from(most).unwrap_or(u32::MAX)));
        let slots = Self { permits, waits: Arc::default(), health: Arc::clone(health) };
        let (permits, waits) = (Arc::clone(&slots.permits), Arc::clone(&slots.waits));
        let health = Arc::clone(health);
        // Not with the first free slot: a fleet that reconnects would begin and end the condition all the time.
        registry.before_each_answer(move || {
            // The listener holds a slot for the next connection.
            if !waits.load(Ordering::Relaxed) && permits.available_permits() + 1 > most / FREE_PART {
                health.clear(Reason::ConnectionLimit);
            }
        });
        slots
    }

    /// Takes a slot, after waiting for one. Cancel-safe.
    pub(super) async fn take(&self) -> io::Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        self.waits.store(true, Ordering::Relaxed);
        self.health.raise(Reason::ConnectionLimit);
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(io::Error::other);
        self.waits.store(false, Ordering::Relaxed);
        permit
    }
}

/// The condition ends when more than this part of the slots is free.
const FREE_PART: usize = 20;
