//! What all tasks of the flags share. It refers to none of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::{FlagConfig, Pace};
use super::metrics::FlagMetrics;
use super::stuck::StuckFlags;
use crate::health::{Health, Reason};
use crate::store::{ErrorClass, StoreError};

/// Shared by all tasks.
pub(super) struct FlagContext {
    pub(super) config: FlagConfig,
    pub(super) pace: Pace,
    pub(super) metrics: FlagMetrics,
    pub(super) health: Arc<Health>,
    /// Changes that the database refuses.
    pub(super) stuck: StuckFlags,
    pub(super) stop: CancellationToken,
    /// Requests a reconciliation now.
    pub(super) reconcile: Notify,
    /// Announces new corrections.
    pub(super) publish: Notify,
}

/// A task that may wait because the database refuses flags. Each is a holder of `flags_stuck`.
#[derive(Clone, Copy, Debug)]
pub(super) enum FlagTask {
    Consumer = 1,
    Reconciler = 2,
}

impl FlagContext {
    /// Notes whether a task waits because the database answers and refuses all flags.
    pub(super) fn note_refusal(&self, task: FlagTask, error: Option<&StoreError>) {
        // Missing tables of flags are a part of an outdated schema, which has a reason of its own.
        let is_outdated = self.health.holds(Reason::SchemaOutdated);
        let refuses = error.is_some_and(|error| error.class == ErrorClass::Refuses && !is_outdated);
        self.health.set(Reason::FlagsStuck, task as u16, refuses);
    }
}

/// For commands that Redis answers at once.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
