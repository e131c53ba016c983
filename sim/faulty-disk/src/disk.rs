//! The state of the disk, what a test may do to it, and what a power cut leaves.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use super::content::Content;

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct FaultyDisk {
    disk: Arc<Mutex<Disk>>,
}

/// What a disk is to do wrong, from now on. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Power goes off after so many more operations that change something.
    pub power_off_after: Option<u64>,
    /// One more write fails after so many.
    pub fail_write_after: Option<u64>,
    /// One more sync of a file or of the names fails after so many, and what it was to make durable is not.
    pub fail_sync_after: Option<u64>,
    /// Bytes of files that fit.
    pub capacity: Option<u64>,
}

/// How often things were done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Writes.
    pub writes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Everything that may have changed what a power cut would leave.
    pub changes: u64,
}

pub(super) struct Disk {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) operations: Operations,
    /// Counts power cycles: a handle of an earlier one is dead.
    pub(super) cycle: u64,
    pub(super) power: bool,
    pub(super) files: Vec<Content>,
    /// The names as processes see them: name to index in `files`.
    pub(super) names: BTreeMap<String, usize>,
    /// The names on the platter, after each change that is not synced yet; the last one is what processes see.
    pub(super) changes: Vec<BTreeMap<String, usize>>,
    pub(super) synced_names: BTreeMap<String, usize>,
    pub(super) lock: Option<Arc<AtomicBool>>,
}

impl FaultyDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let disk = Disk {
            rng: Rng::with_seed(seed),
            faults: Faults::default(),
            operations: Operations::default(),
            cycle: 0,
            power: true,
            files: Vec::new(),
            names: BTreeMap::new(),
            changes: Vec::new(),
            synced_names: BTreeMap::new(),
            lock: None,
        };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.disk().faults = faults;
    }

    /// Cuts the power, and puts it back: every handle is dead, and what was not synced is as chance wants it.
    pub fn power_cycle(&self) {
        let mut disk = self.disk();
        let Disk { rng, changes, synced_names, files, .. } = &mut *disk;
        let kept = rng.usize(0..=changes.len());
        if let Some(names) = kept.checked_sub(1).and_then(|last| changes.get(last)) {
            synced_names.clone_from(names);
        }
        changes.clear();
        for file in files.iter_mut() {
            file.lose_power(rng);
        }
        disk.names = disk.synced_names.clone();
        disk.restart();
        disk.operations.changes += 1;
        disk.operations.power_cuts += 1;
    }

    /// Ends the process, not the power: every handle is dead, everything written is still seen, except that of what a failed
    /// sync gave up some is forgotten.
    pub fn kill(&self) {
        let mut disk = self.disk();
        let Disk { rng, files, .. } = &mut *disk;
        for file in files.iter_mut() {
            file.forget(rng);
        }
        disk.restart();
    }

    /// Flips one bit of a file, synced or not. False where the file has no such byte.
    #[must_use]
    pub fn flip(&self, name: &str, bit: u64) -> bool {
        let mut disk = self.disk();
        let Some(index) = disk.names.get(name).copied() else { return false };
        let Some(file) = disk.files.get_mut(index) else { return false };
        let Ok(at) = usize::try_from(bit / 8) else { return false };
        for content in [&mut file.seen, &mut file.durable] {
            match content.get_mut(at) {
                Some(byte) => *byte ^= 1 << (bit % 8),
                None => return false,
            }
        }
        true
    }

    /// The content of a file as processes see it.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(name).and_then(|index| disk.files.get(*index)).map(|file| file.seen.clone())
    }

    /// Puts a durable file there, whatever stood there before.
    pub fn put(&self, name: &str, content: Vec<u8>) {
        let mut disk = self.disk();
        let index = disk.files.len();
        disk.files.push(Content::durable(content));
        disk.names.insert(name.to_owned(), index);
        disk.synced_names = disk.names.clone();
        disk.changes.clear();
    }

    /// What was done so far.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.disk().operations
    }

    /// An independent disk with the same content and names, as it would be read now, all of it durable.
    #[must_use]
    pub fn image(&self, seed: u64) -> Self {
        let (image, disk) = (Self::new(seed), self.disk());
        for (name, index) in &disk.names {
            if let Some(file) = disk.files.get(*index) {
                image.put(name, file.seen.clone());
            }
        }
        drop(disk);
        image
    }

    /// An independent disk as this one may be after a power cut now, with whatever chance `seed` wants; without one nothing is left
    /// that was not synced. This disk goes on.
    #[must_use]
    pub fn after_power_cut(&self, seed: Option<u64>) -> Self {
        let (image, disk) = (Self::new(seed.unwrap_or_default()), self.disk());
        let mut new = image.disk();
        let kept = if seed.is_some() { new.rng.usize(0..=disk.changes.len()) } else { 0 };
        let names = kept.checked_sub(1).and_then(|last| disk.changes.get(last)).unwrap_or(&disk.synced_names);
        for (name, file) in names.iter().filter_map(|(name, index)| Some((name, disk.files.get(*index)?))) {
            let durable = if seed.is_some() {
                let mut file = file.clone();
                file.lose_power(&mut new.rng);
                file.durable
            } else {
                file.durable.clone()
            };
            let index = new.files.len();
            new.files.push(Content::durable(durable));
            new.names.insert(name.clone(), index);
        }
        new.synced_names = new.names.clone();
        drop((new, disk));
        image
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn restart(&mut self) {
        (self.power, self.lock, self.faults) =
            (true, None, Faults { capacity: self.faults.capacity, ..Faults::default() });
        self.cycle += 1;
    }

    /// Before everything that reads.
    pub(super) fn powered(&self, cycle: u64) -> io::Result<()> {
        if self.power && cycle == self.cycle { Ok(()) } else { Err(io::Error::other("the power is off")) }
    }

    /// Before everything that changes something.
    pub(super) fn change(&mut self, cycle: u64) -> io::Result<()> {
        self.operations.changes += 1;
        if spent(&mut self.faults.power_off_after) {
            self.power = false;
        }
        self.powered(cycle)
    }

    pub(super) fn renamed(&mut self) {
        self.changes.push(self.names.clone());
    }

    pub(super) fn file(&mut self, index: usize) -> io::Result<&mut Content> {
        self.files.get_mut(index).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn used(&self) -> u64 {
        self.names.values().filter_map(|index| self.files.get(*index)).map(|file| file.seen.len() as u64).sum()
    }
}

/// Counts down; true once, when nothing is left.
pub(super) fn spent(left: &mut Option<u64>) -> bool {
    match left {
        Some(0) => {
            *left = None;
            true
        }
        Some(some) => {
            *some -= 1;
            false
        }
        None => false,
    }
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk").finish_non_exhaustive()
    }
}
