//! The thread of admission: reading a long list or writing it to disk never delays a session.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::config::AdmissionConfig;
use super::known_file::KnownFile;
use super::loader::{Loader, LoaderState};
use super::metrics::AdmissionMetrics;
use super::registered::Admission;
use super::unknown_devices::UnknownDeviceFile;
use crate::health::{Health, Reason};
use crate::metrics::Registry;
use crate::store::DeviceTable;

/// The running thread.
pub struct AdmissionTask {
    ended: CancellationToken,
    /// Dropped by a start that fails half-way, so that no thread is left.
    stop: DropGuard,
    thread: std::thread::JoinHandle<()>,
}

impl AdmissionTask {
    /// Cancelled when it ends, for whatever reason. Before the stop that is a failure.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Stops it and waits for its end, which is soon.
    pub async fn stop(self) {
        let Self { ended, stop, thread } = self;
        drop(stop);
        ended.cancelled().await;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

/// Starts keeping the list of registered devices, if there is a configuration, and waits a moment for the first list: trackers
/// that come right after the start had better wait than be refused. The database may be down; a SQLite file must exist.
///
/// # Errors
/// When no thread can start.
pub async fn spawn(
    config: Option<AdmissionConfig>,
    registry: &Registry,
    health: &Arc<Health>,
) -> io::Result<Option<(Arc<Admission>, AdmissionTask)>> {
    let metrics = AdmissionMetrics::new(registry);
    let Some(config) = config else { return Ok(None) };
    health.raise(Reason::AdmissionUnknown);
    let admission = Arc::new(Admission::new());
    let (shown, age) = (Arc::clone(&admission), metrics.age.clone());
    registry.before_each_answer(move || age.set(shown.age().as_secs_f64()));
    let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
    let loader = Loader {
        admission: Arc::clone(&admission),
        table: DeviceTable::new(&config.database),
        file: KnownFile::new(&config.data_dir),
        metrics,
        health: Arc::clone(health),
        stop: stop.clone(),
        state: LoaderState::default(),
    };
    let unknown =
        UnknownDeviceWriter { admission: Arc::clone(&admission), file: UnknownDeviceFile::new(&config.data_dir) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (attempted, first) = oneshot::channel();
    let (guard, stopped) = (ended.clone().drop_guard(), stop.clone());
    let thread = std::thread::Builder::new().name("admission".into()).spawn(move || {
        let _guard = guard;
        runtime.block_on(async { tokio::join!(loader.run(attempted), unknown.keep(&stopped)) });
    })?;
    let _ = timeout(FIRST_LIST_TIMEOUT, first).await;
    Ok(Some((admission, AdmissionTask { ended, stop: stop.drop_guard(), thread })))
}

/// Writes the list of unknown devices to disk, for the operator.
struct UnknownDeviceWriter {
    admission: Arc<Admission>,
    file: UnknownDeviceFile,
}

impl UnknownDeviceWriter {
    /// Runs until the stop, and writes once more then.
    async fn keep(self, stop: &CancellationToken) {
        match self.file.read() {
            Ok(None) => {}
            Ok(Some(unknown)) => self.admission.unknown().remember(&unknown, SystemTime::now()),
            Err(error) => {
                tracing::warn!(error = %error, "cannot read the list of unknown devices: starting an empty one");
            }
        }
        let (mut failed, mut logged_at) = (false, None::<Instant>);
        while !stop.is_cancelled() {
            tokio::select! {
                () = sleep(WRITE_EVERY) => {}
                () = stop.cancelled() => {}
            }
            let changes = self.admission.unknown().take_changes();
            if let Some(unknown) = changes
                && let Err(error) = self.file.write(&unknown)
            {
                self.admission.unknown().not_written();
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(error = %error, "cannot write the list of unknown devices");
                }
            }
            if logged_at.is_none_or(|logged_at| logged_at.elapsed() >= LOG_EVERY) {
                let (logins, devices) = self.admission.unknown().take_refused();
                if logins > 0 {
                    logged_at = Some(Instant::now());
                    tracing::info!(logins, devices, "refused unknown devices; `odograph devices unknown` lists them");
                }
            }
        }
    }
}

/// A reachable database answers in this time; trackers wait in the kernel's queue meanwhile.
const FIRST_LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// However many unknown devices try.
const WRITE_EVERY: Duration = Duration::from_secs(2);
const LOG_EVERY: Duration = Duration::from_mins(1);
