//! The thread of admission: reading a long list or writing it to disk never holds up a session.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::loader::{Loader, State};
use super::{Admission, AdmissionMetrics, KnownFile, StrangerFile};
use crate::config::{AdmissionMode, Settings};
use crate::health::{Health, Reason};
use crate::metrics::Registry;
use crate::store::DeviceTable;

/// What runs.
pub struct AdmissionTask {
    ended: CancellationToken,
    /// A start that fails half-way leaves no thread behind.
    stop: DropGuard,
    thread: std::thread::JoinHandle<()>,
}

impl AdmissionTask {
    /// Cancelled when it ends, however it ends; before the stop that is a failure.
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

/// Starts keeping the list of registered devices, if the settings ask for one, and waits a moment for it: trackers that come
/// right after the start are better kept waiting than sent away. The database need not be there; a SQLite file has to be.
///
/// # Errors
/// When there can be no thread.
pub async fn spawn(
    settings: &Settings,
    registry: &Registry,
    health: &Arc<Health>,
) -> io::Result<Option<(Arc<Admission>, AdmissionTask)>> {
    let metrics = AdmissionMetrics::new(registry);
    if settings.admission == AdmissionMode::Open {
        return Ok(None);
    }
    health.raise(Reason::AdmissionUnknown);
    let admission = Arc::new(Admission::new());
    let (shown, age) = (Arc::clone(&admission), metrics.age.clone());
    registry.before_each_answer(move || age.set(shown.age().as_secs_f64()));
    let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
    let loader = Loader {
        admission: Arc::clone(&admission),
        table: DeviceTable::new(&settings.database_url),
        file: KnownFile::new(&settings.data_dir),
        metrics,
        health: Arc::clone(health),
        stop: stop.clone(),
        state: State::default(),
    };
    let strangers = Book { admission: Arc::clone(&admission), file: StrangerFile::new(&settings.data_dir) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (attempted, first) = oneshot::channel();
    let (guard, stopped) = (ended.clone().drop_guard(), stop.clone());
    let thread = std::thread::Builder::new().name("admission".into()).spawn(move || {
        let _guard = guard;
        runtime.block_on(async { tokio::join!(loader.run(attempted), strangers.keep(&stopped)) });
    })?;
    let _ = timeout(FIRST_PATIENCE, first).await;
    Ok(Some((admission, AdmissionTask { ended, stop: stop.drop_guard(), thread })))
}

/// Has the list of strangers on disk, for the operator.
struct Book {
    admission: Arc<Admission>,
    file: StrangerFile,
}

impl Book {
    /// Until the stop, and once more then.
    async fn keep(self, stop: &CancellationToken) {
        match self.file.read() {
            Ok(None) => {}
            Ok(Some(strangers)) => self.admission.strangers().remember(&strangers, SystemTime::now()),
            Err(wrong) => tracing::warn!(error = %wrong, "the list of unknown devices begins anew"),
        }
        let (mut failed, mut told) = (false, None::<Instant>);
        while !stop.is_cancelled() {
            tokio::select! {
                () = sleep(WRITE_EVERY) => {}
                () = stop.cancelled() => {}
            }
            let changes = self.admission.strangers().take_changes();
            if let Some(strangers) = changes
                && let Err(wrong) = self.file.write(&strangers)
            {
                self.admission.strangers().not_written();
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(error = %wrong, "the list of unknown devices cannot be written");
                }
            }
            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                let (logins, devices) = self.admission.strangers().take_refused();
                if logins > 0 {
                    told = Some(Instant::now());
                    tracing::info!(
                        logins,
                        devices,
                        "unknown devices were refused; `odograph devices unknown` lists them"
                    );
                }
            }
        }
    }
}

/// A database that is there answers in this time; trackers wait in the kernel's queue meanwhile.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
/// However many strangers come.
const WRITE_EVERY: Duration = Duration::from_secs(2);
const TELL_EVERY: Duration = Duration::from_mins(1);
