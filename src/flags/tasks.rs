//! Starts and stops the tasks of the flags. They have a thread and a runtime of their own: applying flags never delays a
//! session.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::{FlagConfig, Pace};
use super::context::FlagContext;
use super::metrics::FlagMetrics;
use super::stuck::StuckFlags;
use super::{consumer, lag, publisher, reconciler};
use crate::health::Health;
use crate::store::{DatabaseLedger, Ledger, StoreError};

/// The running tasks.
pub struct FlagTasks {
    ended: CancellationToken,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl FlagTasks {
    /// Cancelled when the tasks end, for whatever reason. Before the stop that is a failure.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Stops the tasks and waits for their end, which is soon: unfinished work is left for the next start.
    pub async fn stop(self) {
        let Self { ended, stop, thread } = self;
        stop.cancel();
        ended.cancelled().await;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

/// Why the tasks cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No thread, or no runtime.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
    /// The database URL cannot be used.
    #[error("cannot open the ledger of flags: {}", .0.source)]
    Ledger(#[from] StoreError),
}

/// Starts consumer, publisher, reconciler and lag measurement; without Redis, the reconciler alone. They run until `stop` is
/// cancelled, whether or not the database and Redis are reachable. The schema must exist: with SQLite, open the store first.
///
/// # Errors
/// [`SpawnError`]; nothing runs then.
pub fn spawn(
    config: FlagConfig,
    metrics: FlagMetrics,
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<FlagTasks, SpawnError> {
    spawn_with(config, Pace::default(), metrics, health, stop)
}

/// Starts them at another pace.
///
/// # Errors
/// [`SpawnError`]; nothing runs then.
pub fn spawn_with(
    config: FlagConfig,
    pace: Pace,
    metrics: FlagMetrics,
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<FlagTasks, SpawnError> {
    let (reconcile, publish) = (Notify::new(), Notify::new());
    let stuck = StuckFlags::new(Arc::clone(&health), metrics.stuck.clone());
    let context = FlagContext { config, pace, metrics, health, stuck, stop: stop.clone(), reconcile, publish };
    let url = &context.config.database;
    let ledgers = [DatabaseLedger::new(url)?, DatabaseLedger::new(url)?, DatabaseLedger::new(url)?];
    start(context, ledgers, stop)
}

fn start<L: Ledger + Send + 'static>(
    context: FlagContext,
    ledgers: [L; 3],
    stop: CancellationToken,
) -> Result<FlagTasks, SpawnError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let thread = std::thread::Builder::new().name("flags".into()).spawn(move || {
        let _guard = guard;
        runtime.block_on(run(&context, ledgers));
    })?;
    Ok(FlagTasks { ended, stop, thread })
}

async fn run<L: Ledger>(context: &FlagContext, [consumes, publishes, reconciles]: [L; 3]) {
    let Some(url) = &context.config.redis else {
        tracing::info!("no REDIS_URL: flags come by reconciliation alone");
        return reconciler::run(context, reconciles).await;
    };
    let FlagConfig { stream, group, consumer, corrected, .. } = &context.config;
    let dead = context.config.dead();
    tracing::info!(%url, stream, group, consumer, corrected, dead, "flags come from Redis");
    tokio::join!(
        consumer::run(context, url, consumes),
        publisher::run(context, url, publishes),
        reconciler::run(context, reconciles),
        lag::run(context, url),
    );
}
