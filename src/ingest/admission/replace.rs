//! Replaces a file as a whole: a reader finds the old content or the new one, also after a crash.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

/// Why a file of the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It differs from what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// Replaces a file. The new content survives a power cut.
pub(super) fn replace_durably(path: &Path, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    let new = written(path, write, File::sync_all)?;
    std::fs::rename(new, path)?;
    File::open(directory_of(path))?.sync_all()
}

/// Replaces a file that may be lost in a power cut: waiting for the disk would delay the journal, which needs it.
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    std::fs::rename(written(path, write, |_| Ok(()))?, path)
}

fn written(
    path: &Path,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    sync: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<std::path::PathBuf> {
    std::fs::create_dir_all(directory_of(path))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = BufWriter::new(File::create(&new)?);
    write(&mut file)?;
    file.flush()?;
    sync(file.get_ref())?;
    Ok(new)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
