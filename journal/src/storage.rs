//! What a journal asks of a disk. Implemented by [`Files`](super::Files) and by [`FaultyDisk`](odograph_faulty_disk::FaultyDisk).
//!
//! The rule that everything above rests on: what was written and then synced survives a power cut; what was not may be there,
//! be missing, or be half there, in any order.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// A directory of flat files.
pub trait Storage: Debug + Send + Sync {
    /// Keeps every other process out until the guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when another has it.
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// The names of all files, in no order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file; it is an error if the name exists.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Renames a file, over another if there is one. Open handles stay with the file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Renames a file to a name that nothing has. Open handles stay with the file.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; nothing is changed then.
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Open handles stay usable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals so far survive a power cut.
    fn sync_names(&self) -> io::Result<()>;
}

/// One open file.
pub trait StorageFile: Debug + Send + Sync {
    /// Claims space for `size` bytes, where the file system can do that without writing them.
    fn reserve(&self, size: u64) -> io::Result<()>;

    /// Its length.
    fn size(&self) -> io::Result<u64>;

    /// Fills `into` from `offset` as far as the file goes; gives the bytes read.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. After an error any part of them may be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written so far survive a power cut. After an error nothing is known, and trying again proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// Whether an error says that there is no room, which passes, rather than that the disk fails, which does not: no space, or no
/// file handle or memory in the process or in the system.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    let exhausted = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOMEM];
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
