//! The last frames with a wrong checksum, kept as files for whoever has to find out where the bytes were bent. The oldest one
//! makes room. Nothing waits for the disk; what comes too fast is not kept.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Where frames are handed in.
#[derive(Clone, Debug)]
pub struct CrcDump(SyncSender<Vec<u8>>);

impl CrcDump {
    /// A ring in `directory`, which is made when the first frame comes. The thread ends with the last sender.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(directory: PathBuf) -> io::Result<Self> {
        let (sender, frames) = sync_channel(WAITING);
        std::thread::Builder::new().name("crc-dump".into()).spawn(move || keep(&directory, &frames))?;
        Ok(Self(sender))
    }

    /// Keeps a frame, unless others are still being written.
    pub(super) fn frame(&self, bytes: &[u8]) {
        let _ = self.0.try_send(bytes.get(..LONGEST.min(bytes.len())).unwrap_or_default().to_vec());
    }
}

fn keep(directory: &Path, frames: &Receiver<Vec<u8>>) {
    let mut said = false;
    for (number, frame) in (next(directory)..).zip(frames.iter()) {
        let wrote = write(&directory.join(name(number)), &frame);
        if let Err(wrong) = wrote
            && !std::mem::replace(&mut said, true)
        {
            tracing::warn!(error = %wrong, "a frame with a wrong checksum cannot be kept as a file");
        }
        if let Some(oldest) = number.checked_sub(FILES) {
            // It may have been taken away already.
            let _ = std::fs::remove_file(directory.join(name(oldest)));
        }
    }
}

/// One line of hex, as `odograph decode` reads it.
fn write(path: &Path, frame: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut line = String::with_capacity(frame.len() * 2 + 1);
    for byte in frame {
        use std::fmt::Write as _;
        let _ = write!(line, "{byte:02x}");
    }
    line.push('\n');
    std::fs::File::create(path)?.write_all(line.as_bytes())
}

/// Behind the youngest file of an earlier run.
fn next(directory: &Path) -> u64 {
    let numbers = std::fs::read_dir(directory).into_iter().flatten().filter_map(|file| {
        let name = file.ok()?.file_name();
        name.to_str()?.strip_suffix(".hex")?.parse::<u64>().ok()
    });
    numbers.max().map_or(0, |youngest| youngest.saturating_add(1))
}

fn name(number: u64) -> String {
    format!("{number:08}.hex")
}

const FILES: u64 = 32;
/// More than any frame of a tracker; a message can be longer.
const LONGEST: usize = 16 * 1024;
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
            keep(directory.path(), &frames);
        }
        let read = |number| std::fs::read_to_string(directory.path().join(name(number))).unwrap();
        assert_eq!((read(3).as_str(), read(34).as_str()), ("0303\n", "2222\n"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 32);
    }
}
