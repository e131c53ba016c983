//! Devices that were refused of late, for the operator: bounded in memory and on disk, however many strangers knock.
//!
//! When the list is full, one goes that was seen only once and longest ago; only where all came again, the one seen longest
//! ago. So somebody who makes up a new IMEI for each login pushes out such inventions, and not the tracker that has been
//! trying for days.

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

/// The list.
#[derive(Debug, Default)]
pub struct Strangers {
    by_imei: HashMap<Imei, Seen, RandomState>,
    /// Not as the file has it.
    changed: bool,
    /// Refused since somebody asked.
    refused: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    attempts: u64,
    first: SystemTime,
    last: SystemTime,
    address: Option<IpAddr>,
}

/// A device that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The device.
    pub imei: Imei,
    /// How often.
    pub attempts: u64,
    /// The first time.
    pub first: SystemTime,
    /// The last time.
    pub last: SystemTime,
    /// Where it came from then.
    pub address: Option<IpAddr>,
}

impl Strangers {
    /// A device was refused.
    pub(super) fn note(&mut self, imei: Imei, address: Option<IpAddr>, now: SystemTime) {
        (self.changed, self.refused) = (true, self.refused.saturating_add(1));
        if let Some(seen) = self.by_imei.get_mut(&imei) {
            (seen.attempts, seen.last, seen.address) = (seen.attempts.saturating_add(1), now, address);
            return;
        }
        if self.by_imei.len() >= MOST {
            let first_to_go = self.by_imei.iter().min_by_key(|(_, seen)| (seen.attempts > 1, seen.last));
            if let Some(imei) = first_to_go.map(|(imei, _)| *imei) {
                self.by_imei.remove(&imei);
            }
        }
        self.by_imei.insert(imei, Seen { attempts: 1, first: now, last: now, address });
    }

    /// Takes devices off the list: they are registered now.
    pub(super) fn forget(&mut self, is_known: impl Fn(Imei) -> bool) {
        let before = self.by_imei.len();
        self.by_imei.retain(|imei, _| !is_known(*imei));
        self.changed |= self.by_imei.len() != before;
    }

    /// Takes in what an earlier run noted, without what is too old to matter.
    pub(super) fn remember(&mut self, strangers: &[Stranger], now: SystemTime) {
        let recent = |stranger: &&Stranger| now.duration_since(stranger.last).is_ok_and(|age| age < KEPT);
        for Stranger { imei, attempts, first, last, address } in strangers.iter().filter(recent).take(MOST).copied() {
            self.by_imei.entry(imei).or_insert(Seen { attempts, first, last, address });
        }
    }

    /// The list, if it is not as this was last asked.
    pub(super) fn take_changes(&mut self) -> Option<Vec<Stranger>> {
        std::mem::take(&mut self.changed).then(|| self.newest_first())
    }

    /// Asks again for what could not be written.
    pub(super) fn not_written(&mut self) {
        self.changed = true;
    }

    /// How many logins were refused since this was last asked, and how many devices are on the list.
    pub(super) fn take_refused(&mut self) -> (u64, usize) {
        (std::mem::take(&mut self.refused), self.by_imei.len())
    }

    /// All of them, the one seen last first.
    pub(super) fn newest_first(&self) -> Vec<Stranger> {
        let stranger = |(imei, seen): (&Imei, &Seen)| {
            let Seen { attempts, first, last, address } = *seen;
            Stranger { imei: *imei, attempts, first, last, address }
        };
        let mut all: Vec<_> = self.by_imei.iter().map(stranger).collect();
        all.sort_unstable_by_key(|stranger| (std::cmp::Reverse(stranger.last), stranger.imei));
        all
    }
}

/// The file `unknown-devices.json` of a data directory.
#[derive(Clone, Debug)]
pub struct StrangerFile(PathBuf);

#[derive(Deserialize, Serialize)]
struct Content {
    version: u32,
    devices: Vec<Line>,
}

#[derive(Deserialize, Serialize)]
struct Line {
    imei: String,
    attempts: u64,
    first: String,
    last: String,
    address: Option<IpAddr>,
}

impl StrangerFile {
    /// That of a data directory. It need not be there.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("unknown-devices.json"))
    }

    /// Reads it, the device that was seen last first; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn read(&self) -> Result<Option<Vec<Stranger>>, FileError> {
        let file = match File::open(&self.0) {
            Err(wrong) if wrong.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text)?;
        let content: Content = serde_json::from_str(&text).map_err(|_| FileError::Damaged("it is no list in JSON"))?;
        if content.version != VERSION {
            return Err(FileError::Damaged("it is of another version"));
        }
        let devices = content.devices.iter().map(Line::parse).collect::<Option<_>>();
        devices.map(Some).ok_or(FileError::Damaged("a device in it is none"))
    }

    /// Replaces it.
    pub(super) fn write(&self, strangers: &[Stranger]) -> io::Result<()> {
        let content = Content { version: VERSION, devices: strangers.iter().map(Line::of).collect() };
        replace(&self.0, |out| serde_json::to_writer_pretty(out, &content).map_err(io::Error::from))
    }
}

impl Line {
    fn of(stranger: &Stranger) -> Self {
        let Stranger { imei, attempts, first, last, address } = *stranger;
        Self { imei: imei.to_string(), attempts, first: time(first), last: time(last), address }
    }

    fn parse(&self) -> Option<Stranger> {
        let Self { imei, attempts, first, last, address } = self;
        let time = |text: &str| humantime::parse_rfc3339(text).ok();
        let (imei, first, last) = (imei.parse().ok()?, time(first)?, time(last)?);
        Some(Stranger { imei, attempts: *attempts, first, last, address: *address })
    }
}

/// A time as it is shown to the operator, to the second.
pub(crate) fn time(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST_PRINTED);
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

/// More than an operator looks through; some 150 KB on disk.
const MOST: usize = 1_000;
/// What has not come for so long will not be registered any more.
const KEPT: Duration = Duration::from_hours(30 * 24);
/// A full list is a sixth of it.
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
        let mut strangers = Strangers::default();
        assert_eq!(strangers.take_changes(), None);
        let (home, away) = (Some([10, 0, 0, 1].into()), Some([10, 0, 0, 2].into()));
        strangers.note(imei(1), home, at(1));
        strangers.note(imei(2), home, at(2));
        strangers.note(imei(1), away, at(3));
        let first = Stranger { imei: imei(1), attempts: 2, first: at(1), last: at(3), address: away };
        let second = Stranger { imei: imei(2), attempts: 1, first: at(2), last: at(2), address: home };
        assert_eq!(strangers.take_changes(), Some(vec![first, second]));
        assert_eq!(strangers.take_changes(), None);
        assert_eq!((strangers.take_refused(), strangers.take_refused()), ((3, 2), (0, 2)));
        strangers.forget(|known| known == imei(9));
        assert_eq!(strangers.take_changes(), None);
        strangers.forget(|known| known == imei(1));
        assert_eq!(strangers.take_changes(), Some(vec![second]));
    }

    #[test]
    fn a_storm_of_inventions_stays_bounded_and_does_not_push_out_who_came_again() {
        let mut strangers = Strangers::default();
        for second in 0..2 {
            strangers.note(imei(7), None, at(second));
        }
        for number in 0..5_000 {
            strangers.note(imei(1_000_000 + number), None, at(10 + number));
        }
        let all = strangers.newest_first();
        assert_eq!(all.len(), MOST);
        assert_eq!((all[0].imei, all[MOST - 1].imei), (imei(1_004_999), imei(7)));
        // Where all came again, age decides.
        for number in 0..MOST as u64 {
            for second in 0..2 {
                strangers.note(imei(2_000_000 + number), None, at(50_000 + 2 * number + second));
            }
        }
        assert!(strangers.newest_first().iter().all(|stranger| stranger.imei != imei(7)));
        assert_eq!(strangers.newest_first().len(), MOST);
    }

    #[test]
    fn the_list_survives_a_restart_without_what_is_too_old() {
        let directory = tempfile::tempdir().unwrap();
        let file = StrangerFile::new(directory.path());
        assert_eq!(file.read().unwrap(), None);
        let mut strangers = Strangers::default();
        strangers.note(imei(1), None, at(0));
        strangers.note(imei(2), Some("2001:db8::1".parse().unwrap()), at(20 * 86_400));
        let written = strangers.newest_first();
        file.write(&written).unwrap();
        let read = file.read().unwrap().unwrap();
        assert_eq!(read, written);
        let mut later = Strangers::default();
        later.remember(&read, at(40 * 86_400));
        assert_eq!(later.newest_first(), read[..1]);
        later.note(imei(2), None, at(41 * 86_400));
        assert_eq!((later.newest_first()[0].attempts, later.newest_first()[0].first), (2, at(20 * 86_400)));
    }

    #[test]
    fn a_full_list_fits_its_file_and_a_damaged_one_is_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let file = StrangerFile::new(directory.path());
        let address = Some("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap());
        let one = Stranger { imei: imei(1), attempts: u64::MAX, first: at(0), last: at(1), address };
        let full: Vec<_> = (0..MOST as u64).map(|number| Stranger { imei: imei(number), ..one }).collect();
        file.write(&full).unwrap();
        assert_eq!(file.read().unwrap().unwrap().len(), MOST);
        let text = std::fs::read_to_string(&file.0).unwrap();
        for wrong in [&text[..text.len() / 2], "", "[]", "{\"version\":2,\"devices\":[]}"] {
            std::fs::write(&file.0, wrong).unwrap();
            assert!(matches!(file.read(), Err(FileError::Damaged(_))), "{wrong:.20}");
        }
    }
}
