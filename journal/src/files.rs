//! The storage of real life: files in one directory.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::storage::{Storage, StorageFile};

/// A directory of real files.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    /// The open directory: what is locked, because no cleaning of files can take it away.
    handle: File,
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
        let directory = directory.canonicalize()?;
        let handle = File::open(&directory)?;
        Ok(Self { directory, handle, access: Access::Write })
    }

    /// For looking into a journal, also beside a running writer. Nothing can be changed through it.
    pub fn read_only(directory: &Path) -> io::Result<Self> {
        fs::read_dir(directory)?;
        let handle = File::open(directory)?;
        Ok(Self { directory: directory.to_owned(), handle, access: Access::Read })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Storage for Files {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let directory = File::open(&self.directory)?;
        locked(&directory)?;
        // The file is what earlier versions lock.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path("lock"))?;
        locked(&file)?;
        Ok(Box::new((directory, file)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(OpenOptions::new().create_new(true).read(true).write(true).open(self.path(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let write = self.access == Access::Write;
        Ok(Arc::new(OpenOptions::new().read(true).write(write).open(self.path(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        match rustix::fs::renameat_with(rustix::fs::CWD, &from, rustix::fs::CWD, &to, RenameFlags::NOREPLACE) {
            // Some file systems cannot do it in one step. The lock keeps others away in between.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if to.try_exists()? => {
                Err(io::ErrorKind::AlreadyExists.into())
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(from, to),
            done => Ok(done?),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        // A directory that was deleted and made again is another one: nothing of this journal is in it.
        let (ours, there) = (self.handle.metadata()?, fs::metadata(&self.directory)?);
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Err(io::Error::other("the directory of the journal was replaced"));
        }
        self.handle.sync_all()
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
