//! The table `devices` in PostgreSQL: a session that listens for changes and reads the table.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::operator_connection::failed;
use super::session_settings;
use super::url::PostgresUrl;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::model::devices::{Devices, NoDeviceTable, READING_DEVICES, row_limit};

/// The table, read over a session that is opened when it is needed. A session that met an error is never used again.
pub(crate) struct PostgresDevices {
    url: PostgresUrl,
    session: Option<DeviceSession>,
}

impl PostgresDevices {
    pub(crate) fn new(url: &PostgresUrl) -> Self {
        Self { url: url.clone(), session: None }
    }

    pub(crate) async fn read(&mut self, most: usize) -> Result<Devices, StoreError> {
        let session = match self.session.take().filter(DeviceSession::is_open) {
            Some(session) => session,
            None => DeviceSession::open(&self.url).await?,
        };
        let devices = session.read(most).await?;
        self.session = Some(session);
        Ok(devices)
    }

    /// Waits for a notification, or for the end of the session. Waits forever without a session.
    pub(crate) async fn changed(&self) {
        match &self.session {
            Some(session) => session.changed().await,
            None => pending().await,
        }
    }
}

struct DeviceSession {
    client: Client,
    /// Notified when devices have changed.
    notified: Arc<Notify>,
    ended: CancellationToken,
    _driver: AbortOnDropHandle<()>,
}

impl DeviceSession {
    /// Connects, and listens before anything is read, so that no change is missed in between.
    async fn open(url: &PostgresUrl) -> Result<Self, StoreError> {
        let (config, tls) = (url.maintenance_config(), url.tls()?);
        let (client, mut connection) = timeout(url.connect_timeout(), config.connect(tls))
            .await
            .map_err(|_| StoreError::timed_out(CONNECTING, url.connect_timeout()))?
            .map_err(failed(CONNECTING))?;
        let (notified, ended) = (Arc::new(Notify::new()), CancellationToken::new());
        let (notify, end) = (Arc::clone(&notified), ended.clone().drop_guard());
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            let _end = end;
            // The next query returns the error of the connection.
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(_) = message {
                    notify.notify_one();
                }
            }
        }));
        let session = Self { client, notified, ended, _driver: driver };
        let listening = session.client.batch_execute("LISTEN devices");
        timeout(PATIENCE, listening)
            .await
            .map_err(|_| StoreError::timed_out(LISTENING, PATIENCE))?
            .map_err(failed(LISTENING))?;
        timeout(PATIENCE, session_settings::verify(&session.client))
            .await
            .map_err(|_| StoreError::timed_out(LISTENING, PATIENCE))??;
        Ok(session)
    }

    fn is_open(&self) -> bool {
        !self.client.is_closed() && !self.ended.is_cancelled()
    }

    async fn changed(&self) {
        tokio::select! {
            () = self.notified.notified() => {}
            () = self.ended.cancelled() => {}
        }
    }

    async fn read(&self, most: usize) -> Result<Devices, StoreError> {
        let reading = timeout(PATIENCE, self.read_all(most)).await;
        reading.map_err(|_| StoreError::timed_out(READING_DEVICES, PATIENCE))?
    }

    async fn read_all(&self, most: usize) -> Result<Devices, StoreError> {
        let reading = || failed(READING_DEVICES);
        let found = self.client.query_one(INSPECT, &[]).await.map_err(reading())?;
        let (exists, notifies): (bool, bool) = (found.get(0), found.get(1));
        if !exists {
            return Err(StoreError::new(ErrorClass::Refuses, READING_DEVICES, NoDeviceTable));
        }
        let mut devices = Devices { notifies, ..Devices::default() };
        let mut rows = pin!(self.client.query_raw(DEVICES, [row_limit(most)]).await.map_err(reading())?);
        while let Some(row) = rows.try_next().await.map_err(reading())? {
            devices.push(row.try_get(0).map_err(reading())?);
        }
        devices.within(most).map_err(|error| StoreError::new(ErrorClass::Refuses, READING_DEVICES, error))
    }
}

const CONNECTING: &str = "connecting to the database for the registered devices";
const LISTENING: &str = "listening for changes of the registered devices";
/// Whether the table exists, and the trigger that notifies of its changes.
const INSPECT: &str = "SELECT to_regclass('devices') IS NOT NULL, EXISTS (SELECT FROM pg_trigger \
                       WHERE tgrelid = to_regclass('devices') AND tgname = 'odograph_devices_changed' \
                       AND tgenabled IN ('O', 'A'))";
/// Directus made the column, as text by default.
const DEVICES: &str = "SELECT imei::text FROM devices LIMIT $1";
/// Two million rows over a slow line. If a lock lasts longer, the next attempt waits for it.
const PATIENCE: Duration = Duration::from_mins(1);
