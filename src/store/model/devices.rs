//! The registered devices, as one reading of the table `devices` found them. The table belongs to Directus and is only
//! read.

use teltonika_codecs::Imei;

/// What one reading of the table found.
#[derive(Debug, Default)]
pub struct Devices {
    /// The IMEIs, in no order.
    pub imeis: Vec<Imei>,
    /// Rows whose `imei` is not 15 digits.
    pub ignored: u64,
    /// Whether a trigger notifies of changes.
    pub notifies: bool,
}

/// The database has no table `devices`.
#[derive(Debug, thiserror::Error)]
#[error("there is no table devices: make the collection in Directus, or run `odograph migrate --standalone-devices`")]
pub(crate) struct NoDeviceTable;

/// The table has more rows than the process holds in memory.
#[derive(Debug, thiserror::Error)]
#[error("the table devices has more than {0} rows, which is more than are held in memory")]
pub(crate) struct TooManyDevices(usize);

impl Devices {
    /// Takes one row. A value that is not an IMEI is only counted.
    pub(crate) fn push(&mut self, imei: Option<&str>) {
        match imei.map(str::parse) {
            Some(Ok(imei)) => self.imeis.push(imei),
            Some(Err(_)) | None => self.ignored += 1,
        }
    }

    fn rows(&self) -> u64 {
        self.ignored.saturating_add(u64::try_from(self.imeis.len()).unwrap_or(u64::MAX))
    }

    /// Refuses a reading of more than `most` rows. The query asks for one row above the limit, so that it shows.
    pub(crate) fn within(self, most: usize) -> Result<Self, TooManyDevices> {
        if usize::try_from(self.rows()).is_ok_and(|rows| rows <= most) { Ok(self) } else { Err(TooManyDevices(most)) }
    }
}

/// The `LIMIT` of a reading: one row above what is allowed.
pub(crate) fn row_limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1)
}

pub(crate) const READING_DEVICES: &str = "reading the registered devices";
