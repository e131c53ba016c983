//! The duplicate filter: what a lane remembers of the records it has written. It is bounded and forgets its older half at once.
//!
//! It has two memories. The exact one is short: the last records of each device. A record in it is committed or in the batch
//! being built, so it need not go to the database again. The other one is long and inexact: a record that is not in it is new as
//! far as anyone remembers. Its mistakes cost time and never data, because the key of the table decides.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use teltonika_codecs::Imei;

/// What is known of a record before the database is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Familiarity {
    /// Not remembered: it can take the fast path.
    New,
    /// It may be in the table.
    Perhaps,
    /// It is in the table, or in the batch that is being built.
    Stored,
}

/// Remembers records of all devices.
pub struct DuplicateFilter {
    devices: [HashMap<u64, RecentRecords, RandomState>; 2],
    perhaps: Bloom,
    /// Random, so that an attacker cannot choose records that share a block.
    seed: u64,
    sizes: FilterSizes,
}

/// How much each half remembers.
#[derive(Clone, Copy, Debug)]
pub struct FilterSizes {
    /// Devices whose last 32 records are known exactly; 0.4 KiB each.
    pub devices: usize,
    /// Records that are known as perhaps stored; 2 bytes each.
    pub perhaps: usize,
}

impl Default for FilterSizes {
    /// 8 MiB for the last two to four million records, which is what a fleet sends again after an outage; and for the last
    /// records of each device, which is what it sends again after a lost answer, 13 MiB for each of two times 28,000 (what
    /// fits a table of that size).
    fn default() -> Self {
        Self { devices: 28_000, perhaps: 2_000_000 }
    }
}

impl DuplicateFilter {
    /// An empty filter.
    #[must_use]
    pub fn new(sizes: FilterSizes) -> Self {
        let devices = [(); 2].map(|()| HashMap::default());
        Self { devices, perhaps: Bloom::new(sizes.perhaps), seed: fastrand::u64(..), sizes }
    }

    /// The records of one device: looked up once for all records of a frame.
    pub fn device(&mut self, imei: Imei) -> DeviceFilter<'_> {
        let Self { devices: [young, old], perhaps, seed, sizes } = self;
        let imei = imei.get();
        if young.len() >= sizes.devices && !young.contains_key(&imei) {
            std::mem::swap(young, old);
            young.clear();
        }
        let recent = young.entry(imei).or_insert_with(|| old.remove(&imei).unwrap_or_default());
        DeviceFilter { imei, recent, perhaps, seed: *seed }
    }

    /// Forgets what counts as stored: the batch being built is abandoned, or the database went
    /// back. Its records are still known as perhaps stored.
    pub fn distrust(&mut self) {
        self.devices.iter_mut().for_each(HashMap::clear);
    }
}

/// The filter for one device.
pub struct DeviceFilter<'a> {
    imei: u64,
    recent: &'a mut RecentRecords,
    perhaps: &'a mut Bloom,
    seed: u64,
}

impl DeviceFilter<'_> {
    /// Looks up a record by device time and fingerprint, and remembers it.
    #[inline]
    pub fn check_and_remember(&mut self, ts_ms: i64, fingerprint: i32) -> Familiarity {
        if self.recent.holds(ts_ms, fingerprint) {
            return Familiarity::Stored;
        }
        self.recent.add(ts_ms, fingerprint);
        // Records of a few seconds share a block, so that those of a frame miss the cache once or twice.
        let block = stir(self.imei.wrapping_mul(self.seed | 1) ^ stir((ts_ms >> 13).cast_unsigned() ^ self.seed));
        let bits = (u64::from(fingerprint.cast_unsigned()) << 32 | ts_ms.cast_unsigned() & 0xFFFF_FFFF) ^ block;
        if self.perhaps.check_and_add(block, bits) { Familiarity::Perhaps } else { Familiarity::New }
    }
}

/// The last records of a device: a ring.
struct RecentRecords {
    newest_ms: i64,
    next: usize,
    fingerprints: [i32; RECENT],
    times: [i64; RECENT],
}

impl Default for RecentRecords {
    fn default() -> Self {
        Self { newest_ms: i64::MIN, next: 0, fingerprints: [0; RECENT], times: [i64::MIN; RECENT] }
    }
}

impl RecentRecords {
    #[inline]
    fn holds(&self, ts_ms: i64, fingerprint: i32) -> bool {
        // Nearly always the first record of a frame is newer than all before.
        ts_ms <= self.newest_ms
            && self.fingerprints.contains(&fingerprint)
            && self.fingerprints.iter().zip(&self.times).any(|seen| seen == (&fingerprint, &ts_ms))
    }

    #[inline]
    fn add(&mut self, ts_ms: i64, fingerprint: i32) {
        let place = self.next % RECENT;
        self.fingerprints[place] = fingerprint;
        self.times[place] = ts_ms;
        self.next = place + 1;
        self.newest_ms = self.newest_ms.max(ts_ms);
    }
}

/// A Bloom filter of two generations whose blocks lie side by side in one cache line: 256 bits each, six of them for each
/// key. About one look-up in 150 is mistaken.
struct Bloom {
    blocks: Vec<[BlockHalf; 2]>,
    /// Which of the two takes new keys.
    young: usize,
    keys: usize,
    capacity: usize,
}

type BlockHalf = [u64; 4];

impl Bloom {
    fn new(capacity: usize) -> Self {
        Self { blocks: vec![[[0; 4]; 2]; (capacity / KEYS_A_BLOCK).max(1)], young: 0, keys: 0, capacity }
    }

    /// Whether the key may be there; it is afterwards.
    #[inline]
    fn check_and_add(&mut self, block: u64, bits: u64) -> bool {
        if self.keys >= self.capacity {
            self.forget();
        }
        let blocks = u64::try_from(self.blocks.len()).unwrap_or(u64::MAX);
        // The hash's upper half, evenly over any number of blocks.
        let at = usize::try_from(((block >> 32) * blocks) >> 32).unwrap_or(0);
        let Some(halves) = self.blocks.get_mut(at) else { return true };
        let mask = mask(bits);
        let holds = |half: &BlockHalf| half.iter().zip(mask).all(|(word, bits)| word & bits == bits);
        if halves.iter().any(holds) {
            return true;
        }
        if let Some(half) = halves.get_mut(self.young) {
            half.iter_mut().zip(mask).for_each(|(word, bits)| *word |= bits);
        }
        self.keys += 1;
        false
    }

    fn forget(&mut self) {
        self.young = 1 - self.young;
        self.keys = 0;
        for half in self.blocks.iter_mut().filter_map(|halves| halves.get_mut(self.young)) {
            *half = [0; 4];
        }
    }
}

/// Every bit of the result depends on every bit given: the finisher of `SplitMix64`. Quick hashes are not even enough here:
/// with some seeds they sent one new record in ten to a block that knows it.
#[inline]
fn stir(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

/// Six of 256 bits.
#[inline]
fn mask(bits: u64) -> BlockHalf {
    let stirred = stir(bits);
    let mut mask = [0; 4];
    for nth in 0..6 {
        let place = stirred >> (64 - 8 * (nth + 1));
        let word = usize::try_from(place >> 6 & 3).unwrap_or(0);
        mask[word] |= 1 << (place & 63);
    }
    mask
}

const RECENT: usize = 32;
const KEYS_A_BLOCK: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1000;

    fn see(seen: &mut DuplicateFilter, device: u64, number: i64) -> Familiarity {
        let fingerprint = i32::try_from(number * 7919 % 1_000_000_007).unwrap();
        seen.device(Imei::try_from(device).unwrap())
            .check_and_remember(1_780_000_000_000 + number * SECOND, fingerprint)
    }

    #[test]
    fn a_record_is_stored_while_it_is_remembered_exactly_then_perhaps_then_new_again() {
        let mut seen = DuplicateFilter::new(FilterSizes { devices: 10, perhaps: 1_000 });
        assert_eq!((see(&mut seen, 1, 0), see(&mut seen, 1, 0)), (Familiarity::New, Familiarity::Stored));
        assert_eq!(see(&mut seen, 2, 0), Familiarity::New, "of another device");
        let mistaken = (1..100).filter(|number| see(&mut seen, 1, *number) != Familiarity::New).count();
        assert!(mistaken <= 5, "{mistaken}");
        assert_eq!(see(&mut seen, 1, 0), Familiarity::Perhaps);
        assert_eq!(see(&mut seen, 1, 99), Familiarity::Stored);
        for number in 1_000..4_000 {
            see(&mut seen, 1, number);
        }
        // Both generations of the long memory are others by now.
        let forgotten = (1..100).filter(|number| see(&mut seen, 1, *number) == Familiarity::New).count();
        assert!(forgotten >= 80, "{forgotten}");
    }

    #[test]
    fn two_records_of_one_millisecond_are_two() {
        let mut seen = DuplicateFilter::new(FilterSizes::default());
        let mut device = seen.device(Imei::try_from(1).unwrap());
        assert_ne!(device.check_and_remember(5, 1), Familiarity::Stored);
        assert_ne!(device.check_and_remember(5, 2), Familiarity::Stored);
        assert_ne!(device.check_and_remember(4, 1), Familiarity::Stored);
        assert_eq!(device.check_and_remember(5, 1), Familiarity::Stored);
    }

    #[test]
    fn devices_beyond_the_bound_are_forgotten_exactly_and_not_altogether() {
        let mut seen = DuplicateFilter::new(FilterSizes { devices: 10, perhaps: 100_000 });
        for device in 0..30 {
            see(&mut seen, device, 1);
        }
        assert_eq!(see(&mut seen, 29, 1), Familiarity::Stored);
        assert_eq!(see(&mut seen, 0, 1), Familiarity::Perhaps);
        assert!(seen.devices.iter().all(|devices| devices.len() <= 10));
    }

    #[test]
    fn after_a_doubt_nothing_counts_as_stored_and_nothing_as_new() {
        let mut seen = DuplicateFilter::new(FilterSizes::default());
        for number in 0..500 {
            see(&mut seen, 1, number);
        }
        seen.distrust();
        assert!((0..500).all(|number| see(&mut seen, 1, number) == Familiarity::Perhaps));
    }

    #[test]
    fn few_new_records_are_taken_for_old_ones() {
        let mut seen = DuplicateFilter::new(FilterSizes { devices: 1_000, perhaps: 100_000 });
        let mistaken = (0..200_000)
            .filter(|at| see(&mut seen, at % 1_000, i64::try_from(at / 1_000).unwrap()) != Familiarity::New);
        let mistaken = mistaken.count();
        assert!(mistaken <= 2_000, "{mistaken} of 200,000");
    }
}
