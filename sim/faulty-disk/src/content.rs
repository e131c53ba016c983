//! What one file holds: as processes see it, and as it is on the platter.

use std::collections::BTreeSet;

use fastrand::Rng;

#[derive(Clone, Default)]
pub(super) struct Content {
    /// As processes see it.
    pub(super) seen: Vec<u8>,
    /// On the platter.
    pub(super) durable: Vec<u8>,
    /// Sectors of `seen` that a sync will write.
    dirty: BTreeSet<usize>,
    /// Sectors that a failed sync has given up: seen, but never written unless written anew.
    given_up: BTreeSet<usize>,
}

impl Content {
    /// A file that was synced.
    pub(super) fn durable(content: Vec<u8>) -> Self {
        Self { seen: content.clone(), durable: content, ..Self::default() }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        if let Some(place) = self.seen.get_mut(offset..end) {
            place.copy_from_slice(bytes);
        }
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            self.dirty.insert(sector);
            self.given_up.remove(&sector);
        }
    }

    /// Writes one sector that waits, drawn at random.
    pub(super) fn write_back(&mut self, rng: &mut Rng) {
        if let Some(sector) = self.dirty.iter().copied().nth(rng.usize(0..self.dirty.len().max(1))) {
            self.store(sector, 0..SECTOR);
        }
    }

    /// Makes everything durable, or gives it up: a failed sync marks everything clean, and nobody hears of it again.
    pub(super) fn sync(&mut self, fails: bool) {
        for sector in std::mem::take(&mut self.dirty) {
            if fails {
                self.given_up.insert(sector);
            } else {
                self.store(sector, 0..SECTOR);
            }
        }
    }

    /// Brings some bytes of a sector to the platter.
    fn store(&mut self, sector: usize, bytes: std::ops::Range<usize>) {
        let base = sector * SECTOR;
        let end = (base + bytes.end).min(self.seen.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        if let (Some(to), Some(from)) =
            (self.durable.get_mut(base + bytes.start..end), self.seen.get(base + bytes.start..end))
        {
            to.copy_from_slice(from);
        }
    }

    /// The process ends: some of what was given up is forgotten.
    pub(super) fn forget(&mut self, rng: &mut Rng) {
        let chosen: Vec<usize> = self.given_up.iter().copied().filter(|_| rng.bool()).collect();
        for sector in chosen {
            self.given_up.remove(&sector);
            let (begin, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.seen.len()));
            for at in begin..end {
                let durable = self.durable.get(at).copied().unwrap_or(0);
                if let Some(seen) = self.seen.get_mut(at) {
                    *seen = durable;
                }
            }
        }
    }

    /// The power goes off and on.
    pub(super) fn lose_power(&mut self, rng: &mut Rng) {
        for sector in std::mem::take(&mut self.dirty) {
            match rng.u8(0..5) {
                0 | 1 => {}
                2 | 3 => self.store(sector, 0..SECTOR),
                _ => {
                    let cut = rng.usize(0..=SECTOR);
                    self.store(sector, if rng.bool() { 0..cut } else { cut..SECTOR });
                }
            }
        }
        self.given_up.clear();
        self.seen.clone_from(&self.durable);
    }
}

const SECTOR: usize = 512;
