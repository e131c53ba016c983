//! The disk as the journal sees it: names and files, each call of which may meet a fault.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::content::Content;
use super::disk::{FaultyDisk, spent};
use super::file::FaultyFile;
use odograph_journal::{Storage, StorageFile};

impl Storage for FaultyDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut disk = self.disk();
        if disk.lock.as_ref().is_some_and(|held| held.load(Ordering::Relaxed)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let held = Arc::new(AtomicBool::new(true));
        disk.lock = Some(Arc::clone(&held));
        Ok(Box::new(Lock(held)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let disk = self.disk();
        disk.powered(disk.cycle)?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.disk();
        let cycle = disk.cycle;
        disk.change(cycle)?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let index = disk.files.len();
        disk.files.push(Content::default());
        disk.names.insert(name.to_owned(), index);
        disk.renamed();
        Ok(Arc::new(FaultyFile { disk: self.clone(), index, cycle }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let disk = self.disk();
        disk.powered(disk.cycle)?;
        let index = disk.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), index, cycle: disk.cycle }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let cycle = disk.cycle;
        disk.change(cycle)?;
        let index = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), index);
        disk.renamed();
        Ok(())
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        if self.disk().names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let cycle = disk.cycle;
        if !disk.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change(cycle)?;
        disk.names.remove(name);
        disk.renamed();
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.disk();
        let cycle = disk.cycle;
        disk.change(cycle)?;
        if spent(&mut disk.faults.fail_sync_after) {
            return Err(io::Error::other("the sync failed"));
        }
        disk.synced_names = disk.names.clone();
        disk.changes.clear();
        Ok(())
    }
}

struct Lock(Arc<AtomicBool>);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
