//! Wiring: start order and stop order, each top to bottom in one function. Nobody refers back to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::checkpoint::JournalId;
use crate::config::{AckAfter, Settings};
use crate::drain::{Batching, Drain, TimeWindow};
use crate::gateway::{self, Gateway, Limits, Timeouts};
use crate::health::{Health, Reason};
use crate::metrics::{Counts, DrainMetrics, GatewayMetrics, Registry};
use crate::receipt::commit_gate;
use crate::retention::{self, RetentionMetrics};
use crate::store::{DatabaseUrl, Lane, Schema, SqliteStore, Store, StoreError, TimescaleStore, features};

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
    parts: Parts,
}

struct Parts {
    grace: Duration,
    stop_sessions: CancellationToken,
    give_up: CancellationToken,
    stop_admin: CancellationToken,
    gateway: tokio::task::JoinHandle<()>,
    drain_ended: CancellationToken,
    drain: std::thread::JoinHandle<()>,
    admin: tokio::task::JoinHandle<std::io::Result<()>>,
    upkeep: tokio::task::JoinHandle<()>,
    retention: tokio::task::JoinHandle<()>,
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
    /// The embedded store cannot be opened, or a URL cannot be used.
    #[error("cannot open the database: {}", .0.source)]
    Store(#[source] StoreError),
    /// The database is there and lacks migrations.
    #[error("the database lacks migrations: run `odograph migrate` with the same DATABASE_URL, then start again")]
    SchemaOutdated,
    /// The drain's thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// Starts everything: store, drain, listeners. An absent database is no reason not to accept.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub async fn start(settings: &Settings) -> Result<Running, StartError> {
    let AckAfter::Commit = settings.ack_after;
    let registry = Arc::new(Registry::new());
    let health = Arc::new(Health::default());
    // Without a journal the fence belongs to this process alone.
    let lane = Lane::only(JournalId::random());
    match &settings.database_url {
        url @ DatabaseUrl::Sqlite(_) => {
            let store = SqliteStore::open(url, lane).await.map_err(StartError::Store)?;
            start_with(store, settings, registry, health)
        }
        url @ DatabaseUrl::Postgres(_) => {
            let mut store = TimescaleStore::new(url, lane).map_err(StartError::Store)?;
            match store.schema().await {
                Ok(Schema::Outdated) => return Err(StartError::SchemaOutdated),
                Ok(Schema::Current | Schema::Newer) => say_what_is_missing(url).await,
                Err(wrong) => {
                    health.raise(Reason::of(wrong.class));
                    tracing::warn!(cause = %wrong.source, "starting without the database: {wrong}");
                }
            }
            // A store of its own for the drain: a connection lives on the runtime, so the thread, that made it.
            let store = TimescaleStore::new(url, lane).map_err(StartError::Store)?;
            start_with(store, settings, registry, health)
        }
    }
}

/// Needs the runtime that it is called in, for the tasks it spawns.
fn start_with<S: Store + Send + 'static>(
    store: S,
    settings: &Settings,
    registry: Arc<Registry>,
    health: Arc<Health>,
) -> Result<Running, StartError> {
    let trackers = listen(settings.listen)?;
    let pages = listen(settings.admin_listen)?;
    let bound = |listener: &TcpListener, asked: SocketAddr| listener.local_addr().unwrap_or(asked);
    let (trackers_at, admin_at) = (bound(&trackers, settings.listen), bound(&pages, settings.admin_listen));

    let tally = registry.tally();
    let (gate, inbox) = commit_gate(settings.inflight_max, Arc::clone(&tally));
    let window = TimeWindow { past: settings.time_window_past, future: settings.time_window_future };
    let batching = Batching { rows: settings.batch_rows, linger: settings.batch_linger, window };
    let drain =
        Drain::new(store, inbox, batching, DrainMetrics::new(&registry), Arc::clone(&tally), Arc::clone(&health));
    let give_up = CancellationToken::new();
    let (drain, drain_ended) = spawn_drain(drain, give_up.clone()).map_err(StartError::Thread)?;

    let timeouts =
        Timeouts { login: settings.login_timeout, frame: settings.frame_timeout, idle: settings.idle_timeout };
    let gateway = Arc::new(Gateway::new(gate, timeouts, GatewayMetrics::new(&registry), tally));
    let possible = connections_from_file_limit();
    let limits = Limits {
        connections: settings.max_connections.unwrap_or(possible),
        per_address: settings.max_connections_per_ip,
    };
    let stop_sessions = CancellationToken::new();
    let gateway = tokio::spawn(gateway::run(trackers, gateway, limits, stop_sessions.clone()));

    let stop_admin = CancellationToken::new();
    let shown = Admin { registry: Arc::clone(&registry), health: Arc::clone(&health) };
    let admin = tokio::spawn(admin::serve(pages, shown, stop_admin.clone()));
    let upkeep = tokio::spawn(upkeep(Arc::clone(&registry)));
    let retention = RetentionMetrics::new(&registry);
    let retention = tokio::spawn(retention::run(settings.database_url.clone(), settings.retention, retention));

    health.clear(Reason::Starting);
    tracing::info!(
        trackers = %trackers_at, admin = %admin_at, database = %settings.database_url,
        connections = limits.connections, "odograph {} is up", env!("CARGO_PKG_VERSION")
    );
    let parts = Parts {
        grace: settings.shutdown_grace,
        stop_sessions,
        give_up,
        stop_admin,
        gateway,
        drain_ended,
        drain,
        admin,
        upkeep,
        retention,
    };
    Ok(Running { trackers: trackers_at, admin: admin_at, health, registry, parts })
}

impl Running {
    /// Waits until a part ends that never should. Cancel-safe.
    pub async fn failed(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.parts.gateway => "the listener",
            () = self.parts.drain_ended.cancelled() => "the drain",
            _ = &mut self.parts.admin => "the admin listener",
        }
    }

    /// Stops in order: readiness, accepting, sessions, drain, admin. Waits for what is under way, within the grace
    /// period; what is not committed then was never acknowledged.
    pub async fn stop(self) -> Counts {
        let Parts {
            grace,
            stop_sessions,
            give_up,
            stop_admin,
            mut gateway,
            drain_ended,
            drain,
            admin,
            upkeep,
            retention,
        } = self.parts;
        let deadline = Instant::now() + grace;
        self.health.raise(Reason::Stopping);
        retention.abort();
        stop_sessions.cancel();
        if !gateway.is_finished() && timeout_at(deadline, &mut gateway).await.is_err() {
            // Sessions wait for receipts that do not come: without the drain they end unanswered.
            give_up.cancel();
            let _ = timeout(LAST_PATIENCE, gateway).await;
        }
        // With the last session the last sender is gone, so the drain commits what is left and ends by itself, unless the
        // database is away.
        let idle = self.registry.tally().read().waiting == 0;
        let patience =
            if idle { Instant::now() + SHORT_PATIENCE } else { deadline.max(Instant::now() + SHORT_PATIENCE) };
        let _ = timeout_at(patience, drain_ended.cancelled()).await;
        give_up.cancel();
        let _ = tokio::task::spawn_blocking(move || drain.join()).await;
        stop_admin.cancel();
        if !admin.is_finished() {
            let _ = timeout(LAST_PATIENCE, admin).await;
        }
        upkeep.abort();
        let counts = self.registry.tally().read();
        tracing::info!(?counts, "stopped");
        counts
    }
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

type DrainThread = (std::thread::JoinHandle<()>, CancellationToken);

/// The drain has a thread and a runtime of its own, so that decoding and encoding never hold up a session. The token is
/// cancelled when it ends, however it ends.
fn spawn_drain<S: Store + Send + 'static>(drain: Drain<S>, give_up: CancellationToken) -> std::io::Result<DrainThread> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let thread = std::thread::Builder::new().name("drain".into()).spawn(move || {
        let _guard = guard;
        runtime.block_on(drain.run(give_up));
    })?;
    Ok((thread, ended))
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|source| StartError::Listen { address, source })
}

/// Raises the file limit as far as it goes and leaves room for files that are no connections.
fn connections_from_file_limit() -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES).max(64)
}

async fn upkeep(registry: Arc<Registry>) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        registry.upkeep();
    }
}

/// The kernel's usual upper bound; a fleet that comes back all at once must not be turned away.
const BACKLOG: u32 = 4096;
/// Database, admin connections, logs.
const OTHER_FILES: usize = 128;
/// For a drain that has nothing to do.
const SHORT_PATIENCE: Duration = Duration::from_millis(500);
/// It is one line in the log, and no reason to keep trackers waiting.
const FEATURES_PATIENCE: Duration = Duration::from_secs(5);
const LAST_PATIENCE: Duration = Duration::from_secs(10);
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
