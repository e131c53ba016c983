//! The tasks of a running service, and the order in which they stop.

use std::time::Duration;

use tokio::time::{Instant, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::pipeline::Pipeline;
use crate::flags::FlagTasks;
use crate::health::{Health, Reason};
use crate::ingest::admission::AdmissionTask;
use crate::metrics::{Counts, Registry};

/// Everything that runs.
pub(super) struct Tasks {
    pub(super) shutdown_grace: Duration,
    pub(super) stop_sessions: CancellationToken,
    pub(super) gateway: AbortOnDropHandle<()>,
    pub(super) pipeline: Pipeline,
    pub(super) stop_admin: CancellationToken,
    pub(super) admin: AbortOnDropHandle<()>,
    pub(super) upkeep: AbortOnDropHandle<()>,
    pub(super) retention: AbortOnDropHandle<()>,
    pub(super) flags: FlagTasks,
    pub(super) admission: Option<AdmissionTask>,
}

impl Tasks {
    /// Waits until a task ends that never should, and names it. Cancel-safe.
    pub(super) async fn failed(&mut self, health: &Health, registry: &Registry) -> &'static str {
        let flags = self.flags.ended();
        let admission = self.admission.as_ref().map(AdmissionTask::ended).unwrap_or_default();
        let mut every = interval(POISON_POLL);
        let poisoned = async {
            while !health.holds(Reason::JournalPoisoned) {
                every.tick().await;
                registry.update_gauges();
            }
        };
        tokio::select! {
            biased;
            () = poisoned => "the journal",
            _ = &mut self.gateway => "the listener",
            () = self.pipeline.ended.cancelled() => "the drain",
            () = flags.cancelled() => "the flags' thread",
            () = admission.cancelled() => "the thread of admission",
            _ = &mut self.admin => "the admin listener",
        }
    }

    /// Stops in this order: readiness, retention, accepting, sessions, drain, journal, flags, admission, admin listener. Waits
    /// for work in progress within the grace period.
    pub(super) async fn stop(self, health: &Health, registry: &Registry) -> Counts {
        let Self {
            shutdown_grace,
            stop_sessions,
            mut gateway,
            pipeline,
            stop_admin,
            admin,
            upkeep,
            retention,
            flags,
            admission,
        } = self;
        let deadline = Instant::now() + shutdown_grace;
        health.raise(Reason::Stopping);

        // Each step of retention is a transaction: it may end at any moment.
        drop(retention);

        stop_sessions.cancel();
        if !gateway.is_finished() && timeout_at(deadline, &mut gateway).await.is_err() {
            // Sessions wait for receipts that do not come. Without the drain they end unanswered.
            pipeline.give_up();
            let _ = timeout(TASK_PATIENCE, gateway).await;
        }

        let waiting = registry.tally().read().waiting > 0;
        let uncommitted_bytes = pipeline.stop(deadline, waiting).await;

        let _ = timeout(TASK_PATIENCE, flags.stop()).await;
        if let Some(admission) = admission {
            let _ = timeout(TASK_PATIENCE, admission.stop()).await;
        }

        // Last, so that readiness and counters can be read until then.
        stop_admin.cancel();
        if !admin.is_finished() {
            let _ = timeout(TASK_PATIENCE, admin).await;
        }
        drop(upkeep);

        let counts = registry.tally().read();
        if uncommitted_bytes == 0 {
            tracing::info!(?counts, uncommitted_bytes, "stopped; the database has everything");
        } else {
            tracing::warn!(
                ?counts,
                uncommitted_bytes,
                "stopped; the journal holds what the database lacks: keep the data directory, and start again"
            );
        }
        counts
    }
}

/// How soon a failed journal ends the process.
const POISON_POLL: Duration = Duration::from_millis(200);
/// For a task that should end at once.
const TASK_PATIENCE: Duration = Duration::from_secs(10);
