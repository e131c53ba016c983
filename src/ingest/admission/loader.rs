//! Keeps the list up to date: reads the table at the start, on a notification, and by a timer. Whatever goes wrong, the last list
//! stays in force: a database that is down and a table that is missing or unreadable say nothing about who is registered. Only
//! a table that answers does, even an empty one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::known_file::KnownFile;
use super::list::{DEVICES_MAX, DeviceList};
use super::metrics::AdmissionMetrics;
use super::metrics::Reload;
use super::registered::{Admission, ListChange};
use crate::backoff::Backoff;
use crate::health::{Health, Reason};
use crate::store::{DeviceTable, Devices, ErrorClass, StoreError};

/// Reads the table and writes the file.
pub(super) struct Loader {
    pub(super) admission: Arc<Admission>,
    pub(super) table: DeviceTable,
    pub(super) file: KnownFile,
    pub(super) metrics: AdmissionMetrics,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
    pub(super) state: LoaderState,
}

/// What was written and logged already, so that it is not repeated every few seconds.
#[derive(Default)]
pub(super) struct LoaderState {
    /// Whether the file holds the list in force.
    on_disk: bool,
    disk_failed: bool,
    failed: Option<ErrorClass>,
    ignored: u64,
    without_trigger: bool,
}

impl Loader {
    /// Loads until the stop. Drops `attempted` when the first attempt ends, successful or not.
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
                Err(error) => {
                    self.failed(&error);
                    attempted.take();
                    backoff.wait(&stop).await;
                }
            }
        }
    }

    /// Waits for the next read. A long list is read less often, so that it does not keep the database busy.
    async fn wait(&self, took: Duration, tells: bool) {
        let told = async {
            self.table.changed().await;
            // Registering a fleet causes many notifications.
            sleep(GATHER.max(took * 2)).await;
        };
        let every = if tells { EVERY_WHEN_TOLD } else { EVERY };
        tokio::select! {
            () = told => {}
            () = sleep(every.max(took * 20)) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Puts the list of an earlier run in force.
    fn remember(&mut self) {
        match self.file.read() {
            Ok(None) => {}
            Ok(Some(remembered)) => {
                let devices = remembered.list.len();
                self.install(remembered.list, remembered.confirmed);
                self.state.on_disk = true;
                let age = humantime::format_duration(Duration::from_secs(self.admission.age().as_secs())).to_string();
                tracing::info!(devices, age, "using the registered devices of an earlier run until the table is read");
            }
            Err(error) => {
                self.metrics.file_failures.increment(1);
                tracing::warn!(file = %self.file.path().display(), error = %error, "cannot use the last known list of devices");
            }
        }
    }

    fn take_in(&mut self, devices: Devices) {
        let Devices { imeis, ignored, notifies } = devices;
        let (list, now) = (DeviceList::from(imeis), SystemTime::now());
        let devices = list.len();
        let ListChange { added, removed, first } = self.install(list, now);
        let changed = first || added + removed > 0;
        self.metrics.reload(if changed { Reload::Changed } else { Reload::Unchanged });
        self.keep(changed, now);
        if self.state.failed.take().is_some() {
            tracing::info!("the registered devices can be read again");
        }
        if changed {
            tracing::info!(devices, added, removed, "the registered devices changed");
        }
        if changed && devices == 0 {
            tracing::warn!("the table devices is empty: no tracker is admitted");
        }
        self.metrics.ignored.set(f64::from(u32::try_from(ignored).unwrap_or(u32::MAX)));
        if std::mem::replace(&mut self.state.ignored, ignored) != ignored && ignored > 0 {
            tracing::warn!(rows = ignored, "ignoring rows of the table devices whose imei is not 15 digits");
        }
        let without_trigger = self.table.can_notify() && !notifies;
        if std::mem::replace(&mut self.state.without_trigger, without_trigger) != without_trigger && without_trigger {
            tracing::info!(
                "no trigger reports changes of the table devices, so it is read every few seconds; \
                 `odograph migrate --directus` or `--standalone-devices` creates one"
            );
        }
    }

    fn install(&self, list: DeviceList, confirmed: SystemTime) -> ListChange {
        self.metrics.devices.set(f64::from(u32::try_from(list.len()).unwrap_or(u32::MAX)));
        let change = self.admission.install(list, confirmed);
        self.health.clear(Reason::AdmissionUnknown);
        change
    }

    /// Writes the list in force to disk.
    fn keep(&mut self, changed: bool, now: SystemTime) {
        if !changed && self.state.on_disk {
            return self.file.confirm(now);
        }
        let Some(list) = self.admission.current() else { return };
        let written = self.file.write(&list);
        self.state.on_disk = written.is_ok();
        match written {
            Ok(()) => self.state.disk_failed = false,
            Err(error) => {
                self.metrics.file_failures.increment(1);
                if !std::mem::replace(&mut self.state.disk_failed, true) {
                    tracing::warn!(
                        file = %self.file.path().display(), error = %error,
                        "cannot write the list of devices: a restart while the database is down would not know them"
                    );
                }
            }
        }
    }

    fn failed(&mut self, error: &StoreError) {
        self.metrics.reload(match error.class {
            ErrorClass::Unavailable => Reload::Unavailable,
            ErrorClass::Refuses => Reload::Refused,
        });
        if self.state.failed.replace(error.class) == Some(error.class) {
            return;
        }
        let (class, cause) = (error.class, &error.source);
        if self.admission.current().is_some() {
            tracing::warn!(%class, %cause, "keeping the last known list of devices: {error}");
        } else {
            tracing::warn!(%class, %cause, "no list of registered devices yet, so no tracker is admitted: {error}");
        }
    }
}

/// Collects changes that come together.
const GATHER: Duration = Duration::from_millis(100);
/// With a trigger that notifies, in case it is bypassed or a notification is lost.
const EVERY_WHEN_TOLD: Duration = Duration::from_mins(1);
/// Without one: as long as a tracker takes to reconnect.
const EVERY: Duration = Duration::from_secs(5);
