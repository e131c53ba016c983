//! The last known list on disk, so that a restart during an outage of the database still knows its trackers.
//!
//! Text, for people too: a line that names the format, an IMEI a line in ascending order, and at the end their number and
//! the CRC-32 of all before that line. Whatever is not exactly so is damaged, and the list is then not known at all: half
//! a list would turn registered trackers away.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crc32fast::Hasher;
use teltonika_codecs::Imei;

use super::replace::{FileError, replace_durably};
use super::{DEVICES_MAX, DeviceList};

/// The file `known-devices` of a data directory.
#[derive(Clone, Debug)]
pub struct KnownFile(PathBuf);

/// What it holds.
#[derive(Debug)]
pub struct Remembered {
    /// The list.
    pub list: DeviceList,
    /// When it was last known to be that of the database.
    pub confirmed: SystemTime,
}

impl KnownFile {
    /// That of a data directory. It need not be there.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("known-devices"))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn read(&self) -> Result<Option<Remembered>, FileError> {
        let file = match File::open(&self.0) {
            Err(wrong) if wrong.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let confirmed = file.metadata()?.modified()?;
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        Ok(Some(Remembered { list: decode(&bytes)?, confirmed }))
    }

    /// Replaces it; durable before it returns.
    pub(super) fn write(&self, list: &DeviceList) -> io::Result<()> {
        replace_durably(&self.0, |out| encode(list, out))
    }

    /// Notes that the list in it is still that of the database. Where that fails, it only looks older than it is.
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
    let body = bytes.strip_prefix(HEAD).ok_or(damaged("it does not begin as a list of this version"))?;
    let lines = body.chunks_exact(LINE).take_while(|line| !line.starts_with(b"end"));
    let mut devices = Vec::with_capacity(body.len() / LINE);
    for line in lines {
        let (digits, end) = line.split_at(Imei::LEN);
        let imei = Imei::from_ascii(digits).ok().filter(|_| end == b"\n").ok_or(damaged("a line is no IMEI"))?;
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
        // A data directory that nobody has made yet.
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
