//! Wiring: start order and stop order, each top to bottom in one function. Nobody refers back to it.

mod pipeline;
mod sockets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::pipeline::Pipeline;
use crate::admin::{self, Admin};
use crate::config::Settings;
use crate::flags::{self, FlagMetrics, FlagSettings, FlagTasks, SpawnError};
use crate::health::{Health, Reason};
use crate::ingest::admission;
use crate::ingest::admission::AdmissionTask;
use crate::ingest::gateway;
use crate::ingest::gateway::{Evidence, Gateway, Limits, Timeouts};
use crate::metrics::{Counts, GatewayMetrics, Registry};
use crate::retention::{Retainer, RetentionMetrics};
use crate::store::features;
use crate::store::{DatabaseUrl, Lane, PostgresStore, Schema, Store, StoreError};
use odograph_journal::JournalId;
use odograph_journal::system_us;
use odograph_journal::{OpenError, ReadError, RecoveryMode};

/// A service that runs.
pub struct Running {
    /// Where trackers connect.
    pub trackers: SocketAddr,
    /// Where `/metrics` and `/readyz` are.
    pub admin: SocketAddr,
    /// Readiness.
    pub health: Arc<Health>,
    /// Counters.
    pub registry: Arc<Registry>,
    /// Retention, which also runs by itself.
    pub retainer: Arc<Retainer>,
    parts: Parts,
}

struct Parts {
    grace: Duration,
    stop_sessions: CancellationToken,
    gateway: AbortOnDropHandle<()>,
    pipeline: Pipeline,
    stop_admin: CancellationToken,
    admin: AbortOnDropHandle<std::io::Result<()>>,
    upkeep: AbortOnDropHandle<()>,
    retention: AbortOnDropHandle<()>,
    flags: FlagTasks,
    admission: Option<AdmissionTask>,
}

/// What the operator accepts by name at this start.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// A part of the journal that the database lacks is gone.
    pub gap: bool,
    /// The clock is right, although the journal holds later receive times.
    pub clock: bool,
    /// What to do about damage in the journal.
    pub recovery: RecoveryMode,
}

impl Default for Accepted {
    fn default() -> Self {
        Self { gap: false, clock: false, recovery: RecoveryMode::Strict }
    }
}

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken, or an address is not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The data directory cannot be made or written to.
    #[error("cannot use the directory {}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The journal cannot be opened or read.
    #[error("cannot open the journal")]
    Journal(#[source] JournalError),
    /// The embedded store cannot be opened, or a URL cannot be used.
    #[error("cannot open the database: {}", .0.source)]
    Store(#[source] StoreError),
    /// The database is there and lacks migrations.
    #[error("the database lacks migrations: run `odograph migrate` with the same DATABASE_URL, then start again")]
    SchemaOutdated,
    /// The flags' tasks cannot be started.
    #[error(transparent)]
    Flags(#[from] SpawnError),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// What is wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It opens and cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Starts everything. An absent database is no reason not to accept.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub async fn start(settings: &Settings, accepted: Accepted) -> Result<Running, StartError> {
    let registry = Arc::new(Registry::new());
    let health = Arc::new(Health::default());
    // First what can be wrong with the machine, and somebody to ask how the start goes on.
    let (trackers, trackers_at) = sockets::listen(settings.listen)?;
    let (pages, admin_at) = sockets::listen(settings.admin_listen)?;
    let stop_admin = CancellationToken::new();
    let shown = Admin { registry: Arc::clone(&registry), health: Arc::clone(&health) };
    let admin = AbortOnDropHandle::new(tokio::spawn(admin::serve(pages, shown, stop_admin.clone())));
    let connections = settings.max_connections.unwrap_or_else(sockets::connections_from_file_limit);
    let gateway_metrics = GatewayMetrics::new(&registry);

    look_at_database(settings, &health).await?;
    let (gate, pipeline) = pipeline::start(settings, accepted, &registry, &health).await?;
    let (flags, flag_metrics) = (FlagSettings::new(settings), FlagMetrics::new(&registry));
    let flags = flags::spawn(flags, flag_metrics, Arc::clone(&health), CancellationToken::new())?;

    let admission = admission::spawn(settings, &registry, &health).await.map_err(StartError::Thread)?;
    let (admitted, admission) = admission.unzip();

    let timeouts =
        Timeouts { login: settings.login_timeout, frame: settings.frame_timeout, idle: settings.idle_timeout };
    let evidence = Evidence::start(settings.data_dir.join("wrong-checksum")).map_err(StartError::Thread)?;
    let evidence = Some(evidence);
    let gateway = Gateway::new(gate, timeouts, gateway_metrics, registry.tally(), evidence, admitted, system_us);
    let gateway = Arc::new(gateway);
    let limits = Limits { connections, per_address: settings.max_connections_per_ip };
    let stop_sessions = CancellationToken::new();
    let gateway = gateway::run(trackers, gateway, limits, stop_sessions.clone());
    let gateway = AbortOnDropHandle::new(tokio::spawn(gateway));
    let upkeep = AbortOnDropHandle::new(tokio::spawn(upkeep(Arc::clone(&registry))));
    let (url, kept, draining) = (settings.database_url.clone(), settings.retention, pipeline.draining());
    let retainer = Arc::new(Retainer::new(url, kept, draining, RetentionMetrics::new(&registry)));
    let retention = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&retainer).run()));

    health.clear(Reason::Starting);
    tracing::info!(
        trackers = %trackers_at, admin = %admin_at, database = %settings.database_url, lanes = settings.lanes,
        connections, "odograph {} is up", env!("CARGO_PKG_VERSION")
    );
    let grace = settings.shutdown_grace;
    let parts =
        Parts { grace, stop_sessions, gateway, pipeline, stop_admin, admin, upkeep, retention, flags, admission };
    Ok(Running { trackers: trackers_at, admin: admin_at, health, registry, retainer, parts })
}

impl Running {
    /// Waits until a part ends that never should. Cancel-safe.
    pub async fn failed(&mut self) -> &'static str {
        let flags = self.parts.flags.ended();
        let admission = self.parts.admission.as_ref().map(AdmissionTask::ended).unwrap_or_default();
        let (health, mut every) = (Arc::clone(&self.health), tokio::time::interval(LOOK_EVERY));
        let poisoned = async {
            while !health.holds(Reason::JournalPoisoned) {
                every.tick().await;
                self.registry.look();
            }
        };
        tokio::select! {
            biased;
            () = poisoned => "the journal",
            _ = &mut self.parts.gateway => "the listener",
            () = self.parts.pipeline.ended.cancelled() => "the drain",
            () = flags.cancelled() => "the flags' thread",
            () = admission.cancelled() => "the thread of admission",
            _ = &mut self.parts.admin => "the admin listener",
        }
    }

    /// Stops in order: readiness, accepting, sessions, drain, journal, flags, admission, admin. Waits for what is under way, within the grace
    /// period; what is not committed then is in the journal, or was never acknowledged.
    pub async fn stop(self) -> Counts {
        let Parts {
            grace,
            stop_sessions,
            mut gateway,
            pipeline,
            stop_admin,
            admin,
            upkeep,
            retention,
            flags,
            admission,
        } = self.parts;
        let deadline = Instant::now() + grace;
        self.health.raise(Reason::Stopping);
        drop(retention);
        stop_sessions.cancel();
        if !gateway.is_finished() && timeout_at(deadline, &mut gateway).await.is_err() {
            // Sessions wait for receipts that do not come: without the drain they end unanswered.
            pipeline.give_up();
            let _ = timeout(LAST_PATIENCE, gateway).await;
        }
        let waiting = self.registry.tally().read().waiting > 0;
        pipeline.stop(deadline, waiting).await;
        let _ = timeout(LAST_PATIENCE, flags.stop()).await;
        if let Some(admission) = admission {
            let _ = timeout(LAST_PATIENCE, admission.stop()).await;
        }
        stop_admin.cancel();
        if !admin.is_finished() {
            let _ = timeout(LAST_PATIENCE, admin).await;
        }
        drop(upkeep);
        let counts = self.registry.tally().read();
        tracing::info!(?counts, "stopped");
        counts
    }
}

/// A database that is there and lacks migrations would take nothing: the operator is told before anything is accepted.
async fn look_at_database(settings: &Settings, health: &Health) -> Result<(), StartError> {
    let url @ DatabaseUrl::Postgres(_) = &settings.database_url else { return Ok(()) };
    let mut store = PostgresStore::new(url, Lane::only(JournalId::random())).map_err(StartError::Store)?;
    match store.schema().await {
        Ok(Schema::Outdated) => return Err(StartError::SchemaOutdated),
        Ok(Schema::Current | Schema::Newer) => say_what_is_missing(url).await,
        Err(wrong) => {
            health.raise(Reason::of(wrong.class));
            tracing::warn!(cause = %wrong.source, "starting without the database: {wrong}");
        }
    }
    Ok(())
}

/// One line about what this database lacks and what that costs. It is no reason not to start.
async fn say_what_is_missing(url: &DatabaseUrl) {
    match timeout(FEATURES_PATIENCE, features(url)).await {
        Err(_) => tracing::warn!("the database does not say what it has"),
        Ok(Ok(features)) => {
            if let Some(lacks) = features.lacks() {
                tracing::warn!("{lacks}");
            }
        }
        Ok(Err(wrong)) => tracing::warn!(cause = %wrong.source, "{wrong}"),
    }
}

async fn upkeep(registry: Arc<Registry>) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        registry.upkeep();
    }
}

/// For a drain that has nothing to do.
const SHORT_PATIENCE: Duration = Duration::from_millis(500);
/// It is one line in the log, and no reason to keep trackers waiting.
const FEATURES_PATIENCE: Duration = Duration::from_secs(5);
const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// How soon a journal that failed ends the process.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
