//! What all tasks of the flags share. It refers to none of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::{FlagConfig, Pace};
use super::metrics::FlagMetrics;
use crate::health::Health;

/// Shared by all tasks.
pub(super) struct FlagContext {
    pub(super) config: FlagConfig,
    pub(super) pace: Pace,
    pub(super) metrics: FlagMetrics,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
    /// Requests a reconciliation now.
    pub(super) reconcile: Notify,
    /// Announces new corrections.
    pub(super) publish: Notify,
}

/// For commands that Redis answers at once.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
