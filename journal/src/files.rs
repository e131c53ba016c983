//! The storage of real life: files in one directory.
//!
//! Each operation goes through the open directory, never through its path. So a writer cannot change a directory that takes the
//! place of its own.

use std::any::Any;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::storage::{Storage, StorageFile};

/// A directory of real files.
#[derive(Debug)]
pub struct Files {
    /// Where the directory was when it was opened.
    path: PathBuf,
    /// The open directory: what is locked, because no cleaning of files can take it away.
    directory: File,
    access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Write,
    Read,
}

impl Files {
    /// For a journal that is written to. Makes the directory, and has its name survive a power cut.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let there = directory.ancestors().find(|above| above.is_dir()).map(Path::to_owned).unwrap_or_default();
        fs::create_dir_all(directory)?;
        // Whatever was made has its name in the directory above it.
        for above in directory.ancestors().skip(1).take_while(|above| above.starts_with(&there)) {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            if directory != there {
                File::open(above)?.sync_all()?;
            }
        }
        let path = directory.canonicalize()?;
        let directory = File::open(&path)?;
        Ok(Self { path, directory, access: Access::Write })
    }

    /// For looking into a journal, also beside a running writer. Nothing can be changed through it.
    pub fn read_only(directory: &Path) -> io::Result<Self> {
        fs::read_dir(directory)?;
        Ok(Self { path: directory.to_owned(), directory: File::open(directory)?, access: Access::Read })
    }

    fn open_at(&self, name: &str, how: OFlags) -> io::Result<File> {
        let mode = Mode::from_raw_mode(0o666);
        Ok(File::from(rustix::fs::openat(&self.directory, name, how | OFlags::CLOEXEC, mode)?))
    }
}

impl Storage for Files {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let directory = self.open_at(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        locked(&directory)?;
        // The file is what earlier versions lock.
        let file = self.open_at("lock", OFlags::WRONLY | OFlags::CREATE)?;
        locked(&file)?;
        Ok(Box::new((directory, file)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            // Not every file system says the type here.
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let there = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(there.st_mode)
                }
                known => known,
            };
            if kind == FileType::RegularFile {
                names.extend(name.to_str().ok().map(str::to_owned));
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(self.open_at(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let how = match self.access {
            Access::Write => OFlags::RDWR,
            Access::Read => OFlags::RDONLY,
        };
        Ok(Arc::new(self.open_at(name, how)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.directory, from, &self.directory, to, RenameFlags::NOREPLACE) {
            // Some file systems cannot do it in one step. The lock keeps others away in between.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match rustix::fs::statat(&self.directory, to, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(Errno::NOENT) => self.rename(from, to),
                    Err(error) => Err(error.into()),
                }
            }
            done => Ok(done?),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn sync_names(&self) -> io::Result<()> {
        // A directory that was deleted and made again is another one: nothing of this journal is in it.
        let (ours, there) = (self.directory.metadata()?, fs::metadata(&self.path)?);
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Err(io::Error::other("the directory of the journal was replaced"));
        }
        self.directory.sync_all()
    }
}

/// Locks an open file or directory for this process.
fn locked(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })
}

impl StorageFile for File {
    fn reserve(&self, size: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::KEEP_SIZE, 0, size) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            done => Ok(done?),
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match std::os::unix::fs::FileExt::read_at(self, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
