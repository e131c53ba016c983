//! The last known list on disk: a restart during a database outage still knows its trackers.
//!
//! It is readable text: a line that names the format, one IMEI per line in ascending order, and at the end their number and the
//! CRC-32 of everything before that line. A file that differs in any way is damaged and ignored as a whole: half a list would
//! refuse registered trackers.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crc32fast::Hasher;
use teltonika_codecs::Imei;

use super::list::{DEVICES_MAX, DeviceList};
use super::replace::{FileError, replace_durably};

/// The file `known-devices` of a data directory.
#[derive(Clone, Debug)]
pub struct KnownFile(PathBuf);

/// Its content.
#[derive(Debug)]
pub struct RememberedList {
    /// The list.
    pub list: DeviceList,
    /// When the list last matched the database.
    pub confirmed: SystemTime,
}

impl KnownFile {
    /// The file of a data directory. It need not exist.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("known-devices"))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it; `None` if it does not exist.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn read(&self) -> Result<Option<RememberedList>, FileError> {
        let file = match File::open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let confirmed = file.metadata()?.modified()?;
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        Ok(Some(RememberedList { list: decode(&bytes)?, confirmed }))
    }

    /// Replaces it durably.
    pub(super) fn write(&self, list: &DeviceList) -> io::Result<()> {
        replace_durably(&self.0, |out| encode(list, out))
    }

    /// Notes that its list still matches the database. If that fails, the file only looks older than it is.
    pub(super) fn confirm(&self, at: SystemTime) {
        let _ = File::options().append(true).open(&self.0).and_then(|file| file.set_modified(at));
    }
}

fn encode(list: &DeviceList, out: &mut dyn Write) -> io::Result<()> {
    let mut sum = Hasher::new();
    sum.update(HEAD);
    out.write_all(HEAD)?;
    for imei in list.iter() {
        let mut line = [b'\n'; LINE];
        for (place, digit) in line.iter_mut().zip(imei.to_ascii()) {
            *place = digit;
        }
        sum.update(&line);
        out.write_all(&line)?;
    }
    writeln!(out, "end {} {:08x}", list.len(), sum.finalize())
}

fn decode(bytes: &[u8]) -> Result<DeviceList, FileError> {
    let damaged = FileError::Damaged;
    let body = bytes.strip_prefix(HEAD).ok_or(damaged("it does not begin like a list of this version"))?;
    let lines = body.chunks_exact(LINE).take_while(|line| !line.starts_with(b"end"));
    let mut devices = Vec::with_capacity(body.len() / LINE);
    for line in lines {
        let (digits, end) = line.split_at(Imei::LEN);
        let imei = Imei::from_ascii(digits).ok().filter(|_| end == b"\n").ok_or(damaged("a line is not an IMEI"))?;
        if devices.last().is_some_and(|last| *last >= imei) {
            return Err(damaged("its lines are out of order"));
        }
        devices.push(imei);
    }
    let length = HEAD.len() + devices.len() * LINE;
    let (summed, end) = bytes.split_at_checked(length).ok_or(damaged("it is cut off"))?;
    if end != format!("end {} {:08x}\n", devices.len(), crc32fast::hash(summed)).as_bytes() {
        return Err(damaged("its end is missing or its checksum is wrong"));
    }
    Ok(devices.into())
}

const HEAD: &[u8] = b"odograph known devices 1\n";
/// An IMEI and the end of its line.
const LINE: usize = Imei::LEN + 1;
/// A full list, and room for the first and last line.
const LONGEST: u64 = (DEVICES_MAX * LINE + 128) as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(numbers: impl IntoIterator<Item = u64>) -> DeviceList {
        numbers.into_iter().map(|number| Imei::try_from(number).unwrap()).collect()
    }

    fn encoded(list: &DeviceList) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(list, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_list_survives_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        // A data directory that does not exist yet.
        let file = KnownFile::new(&directory.path().join("data"));
        assert!(file.read().unwrap().is_none());
        for list in [list([]), list([1]), list(356_307_042_441_000..356_307_042_442_000)] {
            file.write(&list).unwrap();
            assert_eq!(file.read().unwrap().unwrap().list, list);
        }
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_780_000_000);
        file.confirm(at);
        assert_eq!(file.read().unwrap().unwrap().confirmed, at);
        let names: Vec<_> = std::fs::read_dir(directory.path().join("data")).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing else is left: {names:?}");
    }

    #[test]
    fn the_format_is_fixed() {
        let text = "odograph known devices 1\n000000000000007\n356307042441013\nend 2 ";
        let bytes = encoded(&list([356_307_042_441_013, 7]));
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            format!("{text}{:08x}\n", crc32fast::hash(&text.as_bytes()[..57]))
        );
    }

    #[test]
    fn half_a_list_or_a_bent_one_is_none() {
        let whole = encoded(&list([7, 8, 356_307_042_441_013]));
        assert_eq!(decode(&whole).unwrap().len(), 3);
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            for bit in [1, 8, 32] {
                let mut bent = whole.clone();
                bent[at] ^= bit;
                assert!(decode(&bent).is_err(), "bit {bit} of byte {at}");
            }
        }
        assert!(decode(&[&whole[..], b"\n"].concat()).is_err(), "something behind it");
        assert!(decode(&[&whole[..], &whole].concat()).is_err(), "twice");
    }
}
