//! What this lane remembers of the keys it has written: the duplicate filter. Bounded; it forgets the oldest half at a time.
//!
//! Two memories. The exact one is short: a key in it is committed or in the batch being built, so the record need not go to
//! the database again. The other one is long and not exact: a key that is not in it is new as far as anyone remembers. What
//! it gets wrong costs time and never data, as the table's key decides.

use std::collections::HashSet;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::store::Key;

/// What is known of a record before the database is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: it can go the fast way.
    New,
    /// It may stand in the table.
    Perhaps,
    /// It stands in the table, or goes there with the batch that is being built.
    Stored,
}

/// Remembers keys.
pub struct SeenKeys {
    hasher: RandomState,
    stored: [HashSet<Key, RandomState>; 2],
    perhaps: [Bloom; 2],
    sizes: Sizes,
}

/// How many keys each half remembers.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Exactly; 28 bytes each.
    pub stored: usize,
    /// Not exactly; 2 bytes each.
    pub perhaps: usize,
}

impl Default for Sizes {
    /// Some 20 MiB in all: the last 200,000 to 400,000 records, which is what trackers send again after a lost answer, and
    /// the last two to four million, which is what a fleet sends again after an outage.
    fn default() -> Self {
        Self { stored: 200_000, perhaps: 2_000_000 }
    }
}

impl SeenKeys {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        let hasher = RandomState::default();
        Self {
            stored: [(); 2].map(|()| HashSet::with_hasher(hasher.clone())),
            perhaps: [(); 2].map(|()| Bloom::new(sizes.perhaps)),
            hasher,
            sizes,
        }
    }

    /// Looks a key up and remembers it.
    pub fn see(&mut self, key: Key) -> Seen {
        let Self { hasher, stored: [young, old], perhaps: [recent, before], sizes } = self;
        if old.contains(&key) || !young.insert(key) {
            return Seen::Stored;
        }
        if young.len() >= sizes.stored {
            std::mem::swap(young, old);
            young.clear();
        }
        let hash = hasher.hash_one(key);
        let seen = before.holds(hash) || recent.holds(hash);
        if !seen {
            recent.add(hash);
            if recent.keys >= sizes.perhaps {
                std::mem::swap(recent, before);
                recent.clear();
            }
        }
        if seen { Seen::Perhaps } else { Seen::New }
    }

    /// Forgets what stands in the table: a batch that was being built will not be committed as it is, or the database went
    /// back. Its keys are still known as perhaps stored.
    pub fn doubt(&mut self) {
        self.stored.iter_mut().for_each(HashSet::clear);
    }
}

/// A Bloom filter of 64-byte blocks, so that a look-up misses the cache once: six bits of one block for each key. At 16 bits
/// a key about one look-up in 300 is wrong.
struct Bloom {
    blocks: Vec<[u64; 8]>,
    keys: usize,
}

impl Bloom {
    fn new(keys: usize) -> Self {
        Self { blocks: vec![[0; 8]; (keys / KEYS_A_BLOCK).max(1)], keys: 0 }
    }

    fn holds(&self, hash: u64) -> bool {
        let block = self.blocks.get(self.block(hash)).copied().unwrap_or_default();
        bits(hash).all(|(word, bit)| block.get(word).is_some_and(|word| word & bit != 0))
    }

    fn add(&mut self, hash: u64) {
        let block = self.block(hash);
        if let Some(block) = self.blocks.get_mut(block) {
            for (word, bit) in bits(hash) {
                if let Some(word) = block.get_mut(word) {
                    *word |= bit;
                }
            }
        }
        self.keys += 1;
    }

    /// By the hash's upper half, evenly over any number of blocks; the bits are chosen by all of it, stirred.
    fn block(&self, hash: u64) -> usize {
        let blocks = u64::try_from(self.blocks.len()).unwrap_or(u64::MAX);
        usize::try_from(((hash >> 32) * blocks) >> 32).unwrap_or(0)
    }

    fn clear(&mut self) {
        self.blocks.fill([0; 8]);
        self.keys = 0;
    }
}

/// Word and bit of six bits in a block.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let stirred = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..6).map(move |nth| {
        let place = stirred >> (64 - 9 * (nth + 1));
        (usize::try_from(place >> 6 & 7).unwrap_or(0), 1 << (place & 63))
    })
}

const KEYS_A_BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: i64) -> Key {
        Key { imei: 356_307_042_441_013, ts_ms: 1_780_000_000_000 + number, fingerprint: -7 }
    }

    #[test]
    fn a_key_is_stored_while_it_is_remembered_exactly_then_perhaps_then_new_again() {
        let mut seen = SeenKeys::new(Sizes { stored: 10, perhaps: 100 });
        assert_eq!((seen.see(key(0)), seen.see(key(0))), (Seen::New, Seen::Stored));
        let wrong = (1..20).filter(|number| seen.see(key(*number)) != Seen::New).count();
        assert!(wrong <= 1, "{wrong}");
        assert_eq!(seen.see(key(0)), Seen::Perhaps);
        for number in 1_000..2_000 {
            seen.see(key(number));
        }
        // Both halves of the long memory are others by now.
        let forgotten = (1..20).filter(|number| seen.see(key(*number)) == Seen::New).count();
        assert!(forgotten >= 17, "{forgotten}");
    }

    #[test]
    fn after_a_doubt_nothing_counts_as_stored_and_nothing_as_new() {
        let mut seen = SeenKeys::new(Sizes { stored: 1_000, perhaps: 10_000 });
        for number in 0..500 {
            seen.see(key(number));
        }
        seen.doubt();
        assert!((0..500).all(|number| seen.see(key(number)) == Seen::Perhaps));
    }

    #[test]
    fn few_new_keys_are_taken_for_old_ones() {
        let mut seen = SeenKeys::new(Sizes { stored: 1, perhaps: 100_000 });
        for number in 0..99_999 {
            seen.see(key(number));
        }
        let wrong = (200_000..200_500).filter(|number| seen.see(key(*number)) != Seen::New).count();
        assert!(wrong <= 10, "{wrong} of 500");
    }
}
