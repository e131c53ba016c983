//! A running service, as `serve`, `demo` and tests see it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::stop::Tasks;
use crate::health::Health;
use crate::metrics::{Counts, Registry};
use crate::retention::Retainer;

/// A running service.
pub struct Service {
    /// Where trackers connect.
    pub trackers: SocketAddr,
    /// Where `/metrics` and `/readyz` are.
    pub admin: SocketAddr,
    /// Readiness.
    pub health: Arc<Health>,
    /// Counters.
    pub registry: Arc<Registry>,
    /// Retention. It also runs by itself.
    pub retainer: Arc<Retainer>,
    pub(super) tasks: Tasks,
}

impl Service {
    /// Waits until a task ends that never should, and names it. Cancel-safe.
    pub async fn failed(&mut self) -> &'static str {
        self.tasks.failed(&self.health, &self.registry).await
    }

    /// Stops the service within the grace period. Anything that is not committed by then is in the journal, or was never
    /// acknowledged.
    pub async fn stop(self) -> Counts {
        self.tasks.stop(&self.health, &self.registry).await
    }
}
