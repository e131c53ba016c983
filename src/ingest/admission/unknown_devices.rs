//! Devices that were refused recently, for the operator. The list is bounded in memory and on disk, however many devices try.
//!
//! A full list drops the device that was seen only once, longest ago; if every device came again, the one seen longest ago.
//! So an attacker who invents an IMEI for each login pushes out inventions, not the tracker that has been trying for days.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use teltonika_codecs::Imei;

use super::replace::{FileError, replace};

/// The list of refused devices.
#[derive(Debug, Default)]
pub struct UnknownDevices {
    by_imei: HashMap<Imei, Attempts, RandomState>,
    /// Whether the file is out of date.
    changed: bool,
    /// Logins refused since the last [`Self::take_refused`].
    refused: u64,
}

#[derive(Clone, Copy, Debug)]
struct Attempts {
    count: u64,
    first: SystemTime,
    last: SystemTime,
    address: Option<IpAddr>,
}

/// A device that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDevice {
    /// The device.
    pub imei: Imei,
    /// The number of refused logins.
    pub attempts: u64,
    /// The first refusal.
    pub first: SystemTime,
    /// The last refusal.
    pub last: SystemTime,
    /// Its address at the last refusal.
    pub address: Option<IpAddr>,
}

impl UnknownDevices {
    /// Notes a refused login.
    pub(super) fn note(&mut self, imei: Imei, address: Option<IpAddr>, now: SystemTime) {
        (self.changed, self.refused) = (true, self.refused.saturating_add(1));
        if let Some(seen) = self.by_imei.get_mut(&imei) {
            (seen.count, seen.last, seen.address) = (seen.count.saturating_add(1), now, address);
            return;
        }
        if self.by_imei.len() >= MOST {
            let first_to_go = self.by_imei.iter().min_by_key(|(_, seen)| (seen.count > 1, seen.last));
            if let Some(imei) = first_to_go.map(|(imei, _)| *imei) {
                self.by_imei.remove(&imei);
            }
        }
        self.by_imei.insert(imei, Attempts { count: 1, first: now, last: now, address });
    }

    /// Removes devices that are registered now.
    pub(super) fn forget(&mut self, is_known: impl Fn(Imei) -> bool) {
        let before = self.by_imei.len();
        self.by_imei.retain(|imei, _| !is_known(*imei));
        self.changed |= self.by_imei.len() != before;
    }

    /// Takes over the list of an earlier run, without entries that are too old to matter.
    pub(super) fn remember(&mut self, unknown: &[UnknownDevice], now: SystemTime) {
        let recent = |device: &&UnknownDevice| now.duration_since(device.last).is_ok_and(|age| age < KEPT);
        for UnknownDevice { imei, attempts, first, last, address } in unknown.iter().filter(recent).take(MOST).copied()
        {
            self.by_imei.entry(imei).or_insert(Attempts { count: attempts, first, last, address });
        }
    }

    /// The list, if it changed since the last call.
    pub(super) fn take_changes(&mut self) -> Option<Vec<UnknownDevice>> {
        std::mem::take(&mut self.changed).then(|| self.newest_first())
    }

    /// Marks the list as changed again, because writing it failed.
    pub(super) fn not_written(&mut self) {
        self.changed = true;
    }

    /// The number of logins refused since the last call, and of devices on the list.
    pub(super) fn take_refused(&mut self) -> (u64, usize) {
        (std::mem::take(&mut self.refused), self.by_imei.len())
    }

    /// All devices, most recent first.
    pub(super) fn newest_first(&self) -> Vec<UnknownDevice> {
        let device = |(imei, seen): (&Imei, &Attempts)| {
            let Attempts { count: attempts, first, last, address } = *seen;
            UnknownDevice { imei: *imei, attempts, first, last, address }
        };
        let mut all: Vec<_> = self.by_imei.iter().map(device).collect();
        all.sort_unstable_by_key(|device| (std::cmp::Reverse(device.last), device.imei));
        all
    }
}

/// The file `unknown-devices.json` of a data directory.
#[derive(Clone, Debug)]
pub struct UnknownDeviceFile(PathBuf);

#[derive(Deserialize, Serialize)]
struct FileContent {
    version: u32,
    devices: Vec<DeviceLine>,
}

#[derive(Deserialize, Serialize)]
struct DeviceLine {
    imei: String,
    attempts: u64,
    first: String,
    last: String,
    address: Option<IpAddr>,
}

impl UnknownDeviceFile {
    /// The file of a data directory. It need not exist.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("unknown-devices.json"))
    }

    /// Reads it, most recent device first; `None` if it does not exist.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn read(&self) -> Result<Option<Vec<UnknownDevice>>, FileError> {
        let file = match File::open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text)?;
        let content: FileContent =
            serde_json::from_str(&text).map_err(|_| FileError::Damaged("it is not a list in JSON"))?;
        if content.version != VERSION {
            return Err(FileError::Damaged("it has another version"));
        }
        let devices = content.devices.iter().map(DeviceLine::parse).collect::<Option<_>>();
        devices.map(Some).ok_or(FileError::Damaged("a device in it is malformed"))
    }

    /// Replaces it.
    pub(super) fn write(&self, unknown: &[UnknownDevice]) -> io::Result<()> {
        let content = FileContent { version: VERSION, devices: unknown.iter().map(DeviceLine::of).collect() };
        replace(&self.0, |out| serde_json::to_writer_pretty(out, &content).map_err(io::Error::from))
    }
}

impl DeviceLine {
    fn of(device: &UnknownDevice) -> Self {
        let UnknownDevice { imei, attempts, first, last, address } = *device;
        Self { imei: imei.to_string(), attempts, first: time(first), last: time(last), address }
    }

    fn parse(&self) -> Option<UnknownDevice> {
        let Self { imei, attempts, first, last, address } = self;
        let time = |text: &str| humantime::parse_rfc3339(text).ok();
        let (imei, first, last) = (imei.parse().ok()?, time(first)?, time(last)?);
        Some(UnknownDevice { imei, attempts: *attempts, first, last, address: *address })
    }
}

/// A time for the operator, to the second.
#[must_use]
pub fn time(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST_PRINTED);
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

/// More than an operator reads; about 150 KB on disk.
const MOST: usize = 1_000;
/// A device silent for so long will not be registered any more.
const KEPT: Duration = Duration::from_hours(30 * 24);
/// Six times a full list.
const LONGEST: u64 = 1 << 20;
const VERSION: u32 = 1;
/// The end of the year 9999, beyond which no calendar prints.
const LAST_PRINTED: Duration = Duration::from_secs(253_402_300_799);

#[cfg(test)]
mod tests {
    use super::*;

    fn imei(number: u64) -> Imei {
        Imei::try_from(number).unwrap()
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000 + second)
    }

    #[test]
    fn attempts_are_counted_and_the_last_one_is_told() {
        let mut unknown = UnknownDevices::default();
        assert_eq!(unknown.take_changes(), None);
        let (home, away) = (Some([10, 0, 0, 1].into()), Some([10, 0, 0, 2].into()));
        unknown.note(imei(1), home, at(1));
        unknown.note(imei(2), home, at(2));
        unknown.note(imei(1), away, at(3));
        let first = UnknownDevice { imei: imei(1), attempts: 2, first: at(1), last: at(3), address: away };
        let second = UnknownDevice { imei: imei(2), attempts: 1, first: at(2), last: at(2), address: home };
        assert_eq!(unknown.take_changes(), Some(vec![first, second]));
        assert_eq!(unknown.take_changes(), None);
        assert_eq!((unknown.take_refused(), unknown.take_refused()), ((3, 2), (0, 2)));
        unknown.forget(|known| known == imei(9));
        assert_eq!(unknown.take_changes(), None);
        unknown.forget(|known| known == imei(1));
        assert_eq!(unknown.take_changes(), Some(vec![second]));
    }

    #[test]
    fn a_storm_of_inventions_stays_bounded_and_does_not_push_out_who_came_again() {
        let mut unknown = UnknownDevices::default();
        for second in 0..2 {
            unknown.note(imei(7), None, at(second));
        }
        for number in 0..5_000 {
            unknown.note(imei(1_000_000 + number), None, at(10 + number));
        }
        let all = unknown.newest_first();
        assert_eq!(all.len(), MOST);
        assert_eq!((all[0].imei, all[MOST - 1].imei), (imei(1_004_999), imei(7)));
        // If all came again, age decides.
        for number in 0..MOST as u64 {
            for second in 0..2 {
                unknown.note(imei(2_000_000 + number), None, at(50_000 + 2 * number + second));
            }
        }
        assert!(unknown.newest_first().iter().all(|device| device.imei != imei(7)));
        assert_eq!(unknown.newest_first().len(), MOST);
    }

    #[test]
    fn the_list_survives_a_restart_without_what_is_too_old() {
        let directory = tempfile::tempdir().unwrap();
        let file = UnknownDeviceFile::new(directory.path());
        assert_eq!(file.read().unwrap(), None);
        let mut unknown = UnknownDevices::default();
        unknown.note(imei(1), None, at(0));
        unknown.note(imei(2), Some("2001:db8::1".parse().unwrap()), at(20 * 86_400));
        let written = unknown.newest_first();
        file.write(&written).unwrap();
        let read = file.read().unwrap().unwrap();
        assert_eq!(read, written);
        let mut later = UnknownDevices::default();
        later.remember(&read, at(40 * 86_400));
        assert_eq!(later.newest_first(), read[..1]);
        later.note(imei(2), None, at(41 * 86_400));
        assert_eq!((later.newest_first()[0].attempts, later.newest_first()[0].first), (2, at(20 * 86_400)));
    }

    #[test]
    fn a_full_list_fits_its_file_and_a_damaged_one_is_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let file = UnknownDeviceFile::new(directory.path());
        let address = Some("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap());
        let one = UnknownDevice { imei: imei(1), attempts: u64::MAX, first: at(0), last: at(1), address };
        let full: Vec<_> = (0..MOST as u64).map(|number| UnknownDevice { imei: imei(number), ..one }).collect();
        file.write(&full).unwrap();
        assert_eq!(file.read().unwrap().unwrap().len(), MOST);
        let text = std::fs::read_to_string(&file.0).unwrap();
        for bad in [&text[..text.len() / 2], "", "[]", "{\"version\":2,\"devices\":[]}"] {
            std::fs::write(&file.0, bad).unwrap();
            assert!(matches!(file.read(), Err(FileError::Damaged(_))), "{bad:.20}");
        }
    }
}
