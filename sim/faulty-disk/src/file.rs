//! A file of the faulty disk: every call may meet a power cut, a full disk or an error that was asked for.

use std::io;

use super::disk::{Disk, FaultyDisk, spent};
use odograph_journal::StorageFile;

#[derive(Debug)]
pub(super) struct FaultyFile {
    pub(super) disk: FaultyDisk,
    pub(super) index: usize,
    /// The power cycle in which it was opened; of no use in a later one.
    pub(super) cycle: u64,
}

impl StorageFile for FaultyFile {
    fn reserve(&self, size: u64) -> io::Result<()> {
        let disk = self.disk.disk();
        disk.powered(self.cycle)?;
        match disk.faults.capacity {
            Some(capacity) if disk.used() + size > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn size(&self) -> io::Result<u64> {
        let mut disk = self.disk.disk();
        disk.powered(self.cycle)?;
        Ok(disk.file(self.index)?.seen.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.disk.disk();
        disk.powered(self.cycle)?;
        let file = disk.file(self.index)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.seen.len());
        let rest = file.seen.get(from..).unwrap_or_default();
        let length = rest.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..length), rest.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.disk();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let had_power = disk.power;
        let changed = disk.change(self.cycle);
        let (fails, capacity, used) = (spent(&mut disk.faults.fail_write_after), disk.faults.capacity, disk.used());
        // A power cut or an error in the middle of a write leaves a part of it.
        let partly = fails || (changed.is_err() && had_power && self.cycle == disk.cycle);
        let part = if partly { disk.rng.usize(0..=bytes.len()) } else { bytes.len() };
        if changed.is_err() && !partly {
            return changed;
        }
        let file = disk.file(self.index)?;
        let grows = (offset + bytes.len()).saturating_sub(file.seen.len()) as u64;
        if capacity.is_some_and(|capacity| used + grows > capacity && grows > 0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write(offset, bytes.get(..part).unwrap_or_default());
        disk.operations.writes += 1;
        changed?;
        if fails {
            return Err(io::Error::other("the write failed"));
        }
        // What waits may reach the platter at any time, in any order.
        if disk.rng.u8(..) < 32 {
            let Disk { rng, files, .. } = &mut *disk;
            if let Some(file) = files.get_mut(self.index) {
                file.write_back(rng);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.change(self.cycle)?;
        let fails = spent(&mut disk.faults.fail_sync_after);
        disk.file(self.index)?.sync(fails);
        if fails {
            return Err(io::Error::other("the sync failed"));
        }
        disk.operations.syncs += 1;
        Ok(())
    }
}
