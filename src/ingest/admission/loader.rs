//! Keeps the list up to date: reads the table at the start, when somebody says that it has changed, and by a timer. Whatever
//! goes wrong, the last list stays in force: a database that is away, a table that is gone or may not be read say nothing
//! about who is registered. Only a table that answers does, even an empty one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::metrics::Reload;
use super::{Admission, AdmissionMetrics, Change, DEVICES_MAX, DeviceList, KnownFile};
use crate::backoff::Backoff;
use crate::health::{Health, Reason};
use crate::store::{DeviceTable, Devices, ErrorClass, StoreError};

/// Reads the table, and writes the file.
pub(super) struct Loader {
    pub(super) admission: Arc<Admission>,
    pub(super) table: DeviceTable,
    pub(super) file: KnownFile,
    pub(super) metrics: AdmissionMetrics,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
    pub(super) state: State,
}

/// What was written and said already, so that it is not every few seconds.
#[derive(Default)]
pub(super) struct State {
    /// The file holds the list in force.
    on_disk: bool,
    disk_failed: bool,
    failed: Option<ErrorClass>,
    ignored: u64,
    without_trigger: bool,
}

impl Loader {
    /// Loads until the stop. `attempted` is dropped when the first attempt is over, whatever came of it.
    pub(super) async fn run(mut self, attempted: oneshot::Sender<()>) {
        self.remember();
        let (mut backoff, mut attempted) = (Backoff::default(), Some(attempted));
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let read = tokio::select! {
                read = self.table.read(DEVICES_MAX) => read,
                () = stop.cancelled() => break,
            };
            let took = begun.elapsed();
            match read {
                Ok(devices) => {
                    backoff.reset();
                    let tells = devices.notifies;
                    self.take_in(devices);
                    attempted.take();
                    self.wait(took, tells).await;
                }
                Err(wrong) => {
                    self.failed(&wrong);
                    attempted.take();
                    backoff.wait(&stop).await;
                }
            }
        }
    }

    /// Until there is something to read. A long list is read less often: it must not keep the database busy.
    async fn wait(&self, took: Duration, tells: bool) {
        let told = async {
            self.table.changed().await;
            // Who registers a fleet says so many times.
            sleep(GATHER.max(took * 2)).await;
        };
        let every = if tells { EVERY_WHEN_TOLD } else { EVERY };
        tokio::select! {
            () = told => {}
            () = sleep(every.max(took * 20)) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// The list of an earlier run.
    fn remember(&mut self) {
        match self.file.read() {
            Ok(None) => {}
            Ok(Some(remembered)) => {
                let devices = remembered.list.len();
                self.install(remembered.list, remembered.confirmed);
                self.state.on_disk = true;
                let age = humantime::format_duration(Duration::from_secs(self.admission.age().as_secs())).to_string();
                tracing::info!(
                    devices,
                    age,
                    "the registered devices of an earlier run are in force until they are read"
                );
            }
            Err(wrong) => {
                self.metrics.file_failures.increment(1);
                tracing::warn!(file = %self.file.path().display(), error = %wrong, "the last known list of devices is of no use");
            }
        }
    }

    fn take_in(&mut self, devices: Devices) {
        let Devices { imeis, ignored, notifies } = devices;
        let (list, now) = (DeviceList::from(imeis), SystemTime::now());
        let devices = list.len();
        let Change { added, removed, first } = self.install(list, now);
        let changed = first || added + removed > 0;
        self.metrics.reload(if changed { Reload::Changed } else { Reload::Unchanged });
        self.keep(changed, now);
        if self.state.failed.take().is_some() {
            tracing::info!("the registered devices can be read again");
        }
        if changed {
            tracing::info!(devices, added, removed, "the registered devices were read anew");
        }
        if changed && devices == 0 {
            tracing::warn!("the table devices is empty: no tracker is admitted");
        }
        self.metrics.ignored.set(f64::from(u32::try_from(ignored).unwrap_or(u32::MAX)));
        if std::mem::replace(&mut self.state.ignored, ignored) != ignored && ignored > 0 {
            tracing::warn!(rows = ignored, "rows of the table devices are left out: their imei is not 15 digits");
        }
        let without_trigger = self.table.can_notify() && !notifies;
        if std::mem::replace(&mut self.state.without_trigger, without_trigger) != without_trigger && without_trigger {
            tracing::info!(
                "no trigger tells of changes of the table devices, so it is read every few seconds; \
                 `odograph migrate --directus` or `--standalone-devices` makes one"
            );
        }
    }

    fn install(&self, list: DeviceList, confirmed: SystemTime) -> Change {
        self.metrics.devices.set(f64::from(u32::try_from(list.len()).unwrap_or(u32::MAX)));
        let change = self.admission.install(list, confirmed);
        self.health.clear(Reason::AdmissionUnknown);
        change
    }

    /// Has the list in force on disk.
    fn keep(&mut self, changed: bool, now: SystemTime) {
        if !changed && self.state.on_disk {
            return self.file.confirm(now);
        }
        let Some(list) = self.admission.current() else { return };
        let written = self.file.write(&list);
        self.state.on_disk = written.is_ok();
        match written {
            Ok(()) => self.state.disk_failed = false,
            Err(wrong) => {
                self.metrics.file_failures.increment(1);
                if !std::mem::replace(&mut self.state.disk_failed, true) {
                    tracing::warn!(
                        file = %self.file.path().display(), error = %wrong,
                        "the list of devices cannot be written; a restart while the database is away would not know it"
                    );
                }
            }
        }
    }

    fn failed(&mut self, wrong: &StoreError) {
        self.metrics.reload(match wrong.class {
            ErrorClass::Unavailable => Reload::Unavailable,
            ErrorClass::Refuses => Reload::Refused,
        });
        if self.state.failed.replace(wrong.class) == Some(wrong.class) {
            return;
        }
        let (class, cause) = (wrong.class, &wrong.source);
        if self.admission.current().is_some() {
            tracing::warn!(%class, %cause, "the list of devices stays as it was last known: {wrong}");
        } else {
            tracing::warn!(%class, %cause, "which devices are registered was never known, so no tracker is admitted: {wrong}");
        }
    }
}

/// Gathers the changes of one hand.
const GATHER: Duration = Duration::from_millis(100);
/// Where a trigger tells of changes, in case that it is bypassed or the word gets lost.
const EVERY_WHEN_TOLD: Duration = Duration::from_mins(1);
/// Where nobody does: as long as a tracker takes to come again.
const EVERY: Duration = Duration::from_secs(5);
