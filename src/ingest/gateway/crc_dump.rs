//! The last frames with a wrong checksum, as files for the operator who has to find out where the bytes were damaged.
//! The oldest file makes room. No session waits for the disk: a frame that comes too fast is not kept.

use crate::hex;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The sending end of the thread that writes the files.
#[derive(Clone, Debug)]
pub struct CrcDump(SyncSender<Vec<u8>>);

impl CrcDump {
    /// Starts the thread. It makes `directory` when the first frame comes, and ends with the last sender.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(directory: PathBuf) -> io::Result<Self> {
        let (sender, frames) = sync_channel(WAITING);
        std::thread::Builder::new().name("crc-dump".into()).spawn(move || write_all(&directory, &frames))?;
        Ok(Self(sender))
    }

    /// Keeps a frame, unless too many others wait to be written.
    pub(super) fn keep(&self, bytes: &[u8]) {
        let _ = self.0.try_send(bytes.get(..LONGEST.min(bytes.len())).unwrap_or_default().to_vec());
    }
}

/// Writes frames until the last sender is gone. Logs the first failure only.
fn write_all(directory: &Path, frames: &Receiver<Vec<u8>>) {
    let mut reported = false;
    for (number, frame) in (next(directory)..).zip(frames.iter()) {
        if let Err(error) = write(&directory.join(name(number)), &frame)
            && !std::mem::replace(&mut reported, true)
        {
            tracing::warn!(%error, "a frame with a wrong checksum cannot be kept as a file");
        }
        if let Some(oldest) = number.checked_sub(FILES) {
            // Someone may have removed it already.
            let _ = std::fs::remove_file(directory.join(name(oldest)));
        }
    }
}

/// Writes one line of hex, as `odograph decode` reads it.
fn write(path: &Path, frame: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut line = hex::text(frame);
    line.push('\n');
    std::fs::File::create(path)?.write_all(line.as_bytes())
}

/// The number behind the newest file of an earlier run.
fn next(directory: &Path) -> u64 {
    let numbers = std::fs::read_dir(directory).into_iter().flatten().filter_map(|file| {
        let name = file.ok()?.file_name();
        name.to_str()?.strip_suffix(".hex")?.parse::<u64>().ok()
    });
    numbers.max().map_or(0, |newest| newest.saturating_add(1))
}

fn name(number: u64) -> String {
    format!("{number:08}.hex")
}

/// How many files are kept.
const FILES: u64 = 32;
/// More than any frame of a tracker; a message can be longer.
const LONGEST: usize = 16 * 1024;
/// How many frames may wait to be written.
const WAITING: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frames_are_kept_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..FILES + 3 {
            let (sender, frames) = sync_channel(1);
            sender.send(vec![u8::try_from(number).unwrap(); 2]).unwrap();
            drop(sender);
            write_all(directory.path(), &frames);
        }
        let read = |number| std::fs::read_to_string(directory.path().join(name(number))).unwrap();
        assert_eq!((read(3).as_str(), read(34).as_str()), ("0303\n", "2222\n"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 32);
    }
}
