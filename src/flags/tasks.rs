//! The flags' tasks, on a thread and a runtime of their own: applying flags never holds up a session.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::metrics::FlagMetrics;
use super::settings::{FlagSettings, Pace};
use super::{consumer, publisher, reconciler, watch};
use crate::health::Health;
use crate::store::{DatabaseUrl, Ledger, PostgresLedger, SqliteLedger, StoreError};

/// What all tasks know.
pub(super) struct Shared {
    pub(super) settings: FlagSettings,
    pub(super) pace: Pace,
    pub(super) metrics: FlagMetrics,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
    /// Asks for a reconciliation now.
    pub(super) reconcile: Notify,
    /// Says that there are corrections.
    pub(super) publish: Notify,
}

/// The tasks that run.
pub struct FlagTasks {
    ended: CancellationToken,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl FlagTasks {
    /// Cancelled when they end, however they end; before the stop that is a failure.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Stops them and waits for their end, which is soon: what is under way is left for the next start.
    pub async fn stop(self) {
        let Self { ended, stop, thread } = self;
        stop.cancel();
        ended.cancelled().await;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

/// Why they cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No thread, or no runtime.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
    /// The database's URL cannot be used.
    #[error("cannot open the ledger of flags: {}", .0.source)]
    Ledger(#[from] StoreError),
}

/// Starts consumer, publisher, reconciler and watch; without Redis the reconciler alone. They run until `stop` is cancelled,
/// whether or not database and Redis are there. The schema must be: for SQLite the store has to be opened before.
///
/// # Errors
/// [`SpawnError`]; nothing runs then.
pub fn spawn(
    settings: FlagSettings,
    metrics: FlagMetrics,
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<FlagTasks, SpawnError> {
    spawn_with(settings, Pace::default(), metrics, health, stop)
}

/// The same at another pace.
///
/// # Errors
/// [`SpawnError`]; nothing runs then.
pub fn spawn_with(
    settings: FlagSettings,
    pace: Pace,
    metrics: FlagMetrics,
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<FlagTasks, SpawnError> {
    let (reconcile, publish) = (Notify::new(), Notify::new());
    let shared = Shared { settings, pace, metrics, health, stop: stop.clone(), reconcile, publish };
    let url = &shared.settings.database;
    match url {
        DatabaseUrl::Postgres(_) => {
            let ledgers = [PostgresLedger::new(url)?, PostgresLedger::new(url)?, PostgresLedger::new(url)?];
            start(shared, ledgers, stop)
        }
        DatabaseUrl::Sqlite(_) => {
            let ledgers = [SqliteLedger::new(url)?, SqliteLedger::new(url)?, SqliteLedger::new(url)?];
            start(shared, ledgers, stop)
        }
    }
}

fn start<L: Ledger + Send + 'static>(
    shared: Shared,
    ledgers: [L; 3],
    stop: CancellationToken,
) -> Result<FlagTasks, SpawnError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let thread = std::thread::Builder::new().name("flags".into()).spawn(move || {
        let _guard = guard;
        runtime.block_on(run(&shared, ledgers));
    })?;
    Ok(FlagTasks { ended, stop, thread })
}

async fn run<L: Ledger>(shared: &Shared, [consumes, publishes, reconciles]: [L; 3]) {
    let Some(url) = &shared.settings.redis else {
        tracing::info!("no REDIS_URL: flags come by reconciliation alone");
        return reconciler::run(shared, reconciles).await;
    };
    let FlagSettings { stream, group, consumer, corrected, .. } = &shared.settings;
    let dead = shared.settings.dead();
    tracing::info!(%url, stream, group, consumer, corrected, dead, "flags come from Redis");
    tokio::join!(
        consumer::run(shared, url, consumes),
        publisher::run(shared, url, publishes),
        reconciler::run(shared, reconciles),
        watch::run(shared, url),
    );
}

/// For commands that Redis answers at once.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
