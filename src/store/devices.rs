//! The table `devices`, which belongs to Directus and is only read: every IMEI in it, and word of its changes.

use std::path::PathBuf;

use teltonika_codecs::Imei;

use super::{DatabaseUrl, ErrorClass, PostgresUrl, StoreError};
use crate::store::postgres::devices::DeviceSession;

/// What one reading of the table found.
#[derive(Debug, Default)]
pub struct Devices {
    /// The IMEIs, in no order.
    pub imeis: Vec<Imei>,
    /// Rows whose `imei` is not 15 digits.
    pub ignored: u64,
    /// Whether a trigger tells of changes.
    pub notifies: bool,
}

/// The table, over a connection of its own that is made when it is needed. One that met an error is never used again.
pub struct DeviceTable(Kind);

pub(crate) enum Kind {
    Postgres { url: Box<PostgresUrl>, session: Option<DeviceSession> },
    Sqlite(PathBuf),
}

impl DeviceTable {
    /// Prepares for a database, without connecting.
    #[must_use]
    pub fn new(url: &DatabaseUrl) -> Self {
        Self(match url {
            DatabaseUrl::Postgres(url) => Kind::Postgres { url: url.clone(), session: None },
            DatabaseUrl::Sqlite(path) => Kind::Sqlite(path.clone()),
        })
    }

    /// Reads the whole table, which may have this many rows.
    ///
    /// # Errors
    /// When there is no such table, it may not be read, it has more rows, or the database does not answer in time. Nothing is
    /// known of the devices then.
    pub async fn read(&mut self, most: usize) -> Result<Devices, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(path) => super::sqlite::devices::read(path, most).await,
            Kind::Postgres { url, session } => {
                let open = match session.take().filter(DeviceSession::is_open) {
                    Some(open) => open,
                    None => DeviceSession::open(url).await?,
                };
                let devices = open.read(most).await?;
                *session = Some(open);
                Ok(devices)
            }
        }
    }

    /// Whether a trigger could tell of changes.
    #[must_use]
    pub const fn can_notify(&self) -> bool {
        matches!(self.0, Kind::Postgres { .. })
    }

    /// Waits until somebody says that devices have changed, or the connection ends. Where nobody could, for ever.
    /// Cancel-safe; a change while nobody waits is not missed.
    pub async fn changed(&self) {
        match &self.0 {
            Kind::Postgres { session: Some(session), .. } => session.changed().await,
            Kind::Postgres { session: None, .. } | Kind::Sqlite(_) => std::future::pending().await,
        }
    }
}

impl Devices {
    pub(crate) fn push(&mut self, imei: Option<&str>) {
        match imei.map(str::parse) {
            Some(Ok(imei)) => self.imeis.push(imei),
            Some(Err(_)) | None => self.ignored += 1,
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.ignored.saturating_add(u64::try_from(self.imeis.len()).unwrap_or(u64::MAX))
    }

    /// One row more than the bound was asked for.
    pub(crate) fn within(self, most: usize) -> Result<Self, StoreError> {
        if usize::try_from(self.rows()).is_ok_and(|rows| rows <= most) {
            return Ok(self);
        }
        let text = format!("the table devices has more than {most} rows, which is more than are held in memory");
        Err(StoreError::new(ErrorClass::Refuses, READING, text))
    }
}

pub(crate) fn no_table() -> StoreError {
    let text =
        "there is no table devices: make the collection in Directus, or run `odograph migrate --standalone-devices`";
    StoreError::new(ErrorClass::Refuses, READING, text)
}

pub(crate) const READING: &str = "reading the registered devices";
