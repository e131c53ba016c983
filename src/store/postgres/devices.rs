//! The devices in PostgreSQL: a session that listens, and reads them.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::store::devices::{Devices, READING, no_table};
use crate::store::error::remedy;
use crate::store::postgres::session::failed;
use crate::store::{PostgresUrl, StoreError};

pub(crate) struct DeviceSession {
    client: Client,
    /// Somebody said that devices have changed.
    told: Arc<Notify>,
    ended: CancellationToken,
    _driver: AbortOnDropHandle<()>,
}

impl DeviceSession {
    /// Connects, and listens before anything is read: no change falls in between.
    pub(crate) async fn open(url: &PostgresUrl) -> Result<Self, StoreError> {
        let (config, tls) = (url.maintenance_config(), url.tls()?);
        let (client, mut connection) = timeout(url.connect_timeout(), config.connect(tls))
            .await
            .map_err(|_| StoreError::timed_out(CONNECTING, url.connect_timeout()))?
            .map_err(|error| remedy::explain(CONNECTING, None, error))?;
        let (told, ended) = (Arc::new(Notify::new()), CancellationToken::new());
        let (tell, end) = (Arc::clone(&told), ended.clone().drop_guard());
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            let _end = end;
            // Its errors reach whoever asks next.
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(_) = message {
                    tell.notify_one();
                }
            }
        }));
        let session = Self { client, told, ended, _driver: driver };
        let listening = session.client.batch_execute("LISTEN devices");
        timeout(PATIENCE, listening)
            .await
            .map_err(|_| StoreError::timed_out(LISTENING, PATIENCE))?
            .map_err(failed(LISTENING))?;
        Ok(session)
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.client.is_closed() && !self.ended.is_cancelled()
    }

    pub(crate) async fn changed(&self) {
        tokio::select! {
            () = self.told.notified() => {}
            () = self.ended.cancelled() => {}
        }
    }

    pub(crate) async fn read(&self, most: usize) -> Result<Devices, StoreError> {
        timeout(PATIENCE, self.read_all(most)).await.map_err(|_| StoreError::timed_out(READING, PATIENCE))?
    }

    async fn read_all(&self, most: usize) -> Result<Devices, StoreError> {
        let found = self.client.query_one(LOOK, &[]).await.map_err(failed(READING))?;
        let (there, notifies): (bool, bool) = (found.get(0), found.get(1));
        if !there {
            return Err(no_table());
        }
        let mut devices = Devices { notifies, ..Devices::default() };
        let most_rows = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let rows = self.client.query_raw(DEVICES, [most_rows]).await.map_err(failed(READING))?;
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(failed(READING))? {
            devices.push(row.try_get(0).map_err(failed(READING))?);
        }
        devices.within(most)
    }
}

const CONNECTING: &str = "connecting to the database for the registered devices";
const LISTENING: &str = "listening for changes of the registered devices";
/// Whether the table is there, and the trigger that tells of its changes.
const LOOK: &str = "SELECT to_regclass('devices') IS NOT NULL, EXISTS (SELECT FROM pg_trigger \
                    WHERE tgrelid = to_regclass('devices') AND tgname = 'odograph_devices_changed' \
                    AND tgenabled IN ('O', 'A'))";
/// The column is Directus', text by default.
const DEVICES: &str = "SELECT imei::text FROM devices LIMIT $1";
/// Two million rows over a slow line; a lock that somebody holds for longer is waited for in the next attempt.
const PATIENCE: Duration = Duration::from_mins(1);
