//! A disk whose syncs wait at a gate, to see what happens before them.

use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use odograph_faulty_disk::FaultyDisk;
use odograph_journal::{Storage, StorageFile};

/// A disk on which the writer's syncs wait until they may.
#[derive(Clone, Debug)]
pub struct GatedDisk {
    pub disk: FaultyDisk,
    pub gate: Arc<Gate>,
}

#[derive(Debug, Default)]
pub struct Gate {
    /// Whether syncs wait.
    pub closed: Mutex<bool>,
    opened: Condvar,
    pub waiting: AtomicU64,
    /// Whether they fail then.
    pub fails: AtomicBool,
}

impl Gate {
    pub fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }

    pub fn pass(&self) -> io::Result<()> {
        if std::thread::current().name() != Some("odograph-journal") {
            return Ok(());
        }
        let closed = self.closed.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) { Err(io::Error::other("the sync failed")) } else { Ok(()) }
    }

    /// Waits until a sync waits.
    pub fn wait_for_sync(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
    }
}

/// So that a test that fails does not wait for ever for the journal to close.
pub struct OpenAtEnd(pub Arc<Gate>);

impl Drop for OpenAtEnd {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn StorageFile>,
    gate: Arc<Gate>,
}

impl GatedDisk {
    pub fn new(seed: u64) -> Self {
        Self { disk: FaultyDisk::new(seed), gate: Arc::default() }
    }

    fn gated(&self, file: io::Result<Arc<dyn StorageFile>>) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(GatedFile { file: file?, gate: Arc::clone(&self.gate) }))
    }
}

impl Storage for GatedDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.disk.lock()
    }
    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.gated(self.disk.create(name))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.gated(self.disk.open(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename_new(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
}

impl StorageFile for GatedFile {
    fn reserve(&self, size: u64) -> io::Result<()> {
        self.file.reserve(size)
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.gate.pass()?;
        self.file.sync()
    }
}
