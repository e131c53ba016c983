//! The live flags as one connection knows them. A lane needs them to find the rows of its batch that a flag covers.
//!
//! This is only a copy. Each transaction compares its version with the ledger's, under the lock of the ledger, and
//! first reads what is newer. The copy ends with its connection, so it is read again after the database went back.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use uuid::Uuid;

use crate::store::model::flag::Window;
use crate::store::model::row::Key;
use crate::store::model::rows::Rows;

/// Live flags up to a version of the ledger. Empty if there are too many to remember.
#[derive(Default)]
pub(crate) struct FlagCache {
    version: i64,
    too_many: bool,
    windows: HashMap<Uuid, Window, RandomState>,
    /// By device and end, as in the ledger's index, so that a search skips flags that ended before a batch.
    ends: BTreeMap<(u64, i64, Uuid), i64>,
}

/// The part of a row of the ledger that a batch needs.
pub struct LedgerEntry {
    /// The flag.
    pub flag: Uuid,
    /// The window that it covers; `None` if the flag is deleted, or does not declare anything faulty.
    pub live: Option<Window>,
}

impl FlagCache {
    /// Returns the version up to which the ledger is known.
    pub(crate) const fn version(&self) -> i64 {
        self.version
    }

    /// Whether each batch has to read flags by device and time.
    pub(crate) const fn too_many(&self) -> bool {
        self.too_many
    }

    /// Whether no flag can cover anything.
    pub(crate) fn is_empty(&self) -> bool {
        !self.too_many && self.windows.is_empty()
    }

    /// Takes in the rows of the ledger between the known version and this one: the latest row of each flag. If there
    /// are too many flags then, each batch reads its flags from now on.
    pub(crate) fn learn(&mut self, version: i64, entries: Vec<LedgerEntry>) {
        self.version = version;
        self.remember(entries);
        if self.windows.len() > REMEMBERED_MAX {
            self.give_up(version);
        }
    }

    /// Forgets all flags: there are too many.
    pub(crate) fn give_up(&mut self, version: i64) {
        *self = Self { version, too_many: true, ..Self::default() };
    }

    /// Takes in any number of flags.
    pub(crate) fn remember(&mut self, entries: Vec<LedgerEntry>) {
        for LedgerEntry { flag, live } in entries {
            if let Some(before) = self.windows.remove(&flag) {
                self.ends.remove(&(before.imei().get(), before.to_ms(), flag));
            }
            if let Some(window) = live {
                self.windows.insert(flag, window);
                self.ends.insert((window.imei().get(), window.to_ms(), flag), window.from_ms());
            }
        }
    }

    /// Returns begin and end of the flags that overlap a device's time range.
    fn over(&self, imei: u64, from_ms: i64, to_ms: i64) -> impl Iterator<Item = (i64, i64)> {
        let later = self.ends.range((imei, from_ms, Uuid::nil())..=(imei, i64::MAX, Uuid::max()));
        later.map(|((_, to, _), from)| (*from, *to)).filter(move |(from, _)| *from <= to_ms)
    }

    /// Returns the keys of rows that a remembered flag covers, in order. The rows are sorted.
    pub(crate) fn covered(&self, rows: &Rows) -> Vec<Key> {
        let mut keys = Vec::new();
        if self.windows.is_empty() {
            return keys;
        }
        for device in rows.devices() {
            let [(first, _), ..] = device else { continue };
            let last = device.last().map_or(first.ts_ms, |(key, _)| key.ts_ms);
            for (from, to) in self.over(first.imei, first.ts_ms, last) {
                let begin = device.partition_point(|(key, _)| key.ts_ms < from);
                let inside = device.iter().skip(begin).map(|(key, _)| *key);
                keys.extend(inside.take_while(|key| key.ts_ms <= to));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// Maximum of remembered flags, about 150 bytes each. A season of races has some thousands.
pub(crate) const REMEMBERED_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use teltonika_codecs::Imei;

    use super::*;
    use crate::store::model::row::{Row, Spans, TypedElements};

    fn imei(number: u64) -> Imei {
        Imei::from_ascii(format!("{number:015}").as_bytes()).unwrap()
    }

    fn live(flag: u128, device: u64, from: i64, to: i64) -> LedgerEntry {
        LedgerEntry { flag: Uuid::from_u128(flag), live: Some(Window::new(imei(device), from, to).unwrap()) }
    }

    fn rows(keys: &[(u64, i64)]) -> Rows {
        let mut rows = Rows::default();
        for (device, ts_ms) in keys {
            let row = Row {
                imei: imei(*device),
                ts_ms: *ts_ms,
                fingerprint: 1,
                longitude: 0.0,
                latitude: 0.0,
                altitude_m: 0,
                angle_deg: 0,
                speed_kmh: 0,
                satellites: 0,
                priority: 0,
                codec: 8,
                generation_type: None,
                event_io_id: 0,
                valid: true,
                faulty: false,
                received_at_us: 0,
                elements: TypedElements::default(),
                frame: odograph_journal::Position(0),
                record_index: 0,
                spans: Spans::default(),
            };
            rows.push(&row, &[], |_| ());
        }
        rows.sort();
        rows
    }

    fn covered(known: &FlagCache, rows: &Rows) -> Vec<(u64, i64)> {
        known.covered(rows).iter().map(|key| (key.imei, key.ts_ms)).collect()
    }

    #[test]
    fn only_the_rows_under_a_live_flag_are_covered() {
        let mut known = FlagCache::default();
        let rows = rows(&[(1, 5), (1, 10), (1, 20), (1, 21), (2, 15), (3, 0)]);
        assert_eq!(covered(&known, &rows), []);
        known.learn(3, vec![live(1, 1, 10, 20), live(2, 1, 20, 20), live(3, 3, 1, 9), live(4, 9, 0, 99)]);
        assert_eq!(covered(&known, &rows), [(1, 10), (1, 20)]);
        known.learn(5, vec![live(1, 2, 10, 20), LedgerEntry { flag: Uuid::from_u128(4), live: None }]);
        assert_eq!(covered(&known, &rows), [(1, 20), (2, 15)], "one flag moved, another is gone");
        known.learn(6, vec![LedgerEntry { flag: Uuid::from_u128(2), live: None }]);
        assert_eq!(covered(&known, &rows), [(2, 15)]);
        assert_eq!(known.version(), 6);
    }

    #[test]
    fn more_flags_than_are_remembered_are_not_remembered() {
        let mut known = FlagCache::default();
        let many = (0..=REMEMBERED_MAX).map(|flag| live(flag as u128, 1, 0, 1)).collect();
        known.learn(7, many);
        assert!(known.too_many() && !known.is_empty());
        assert_eq!(known.windows.len(), 0);
    }
}
