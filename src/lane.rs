//! Lanes: slices of the devices that share one journal. Each has a thread, a connection and a checkpoint of its own.

use odograph_journal::JournalId;
use teltonika_codecs::Imei;

/// One lane of one journal: the owner of a checkpoint row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The journal, or, where there is none, a random id of this process.
    pub journal: JournalId,
    /// This lane, from 0.
    pub number: u16,
    /// How many lanes share the journal, at least 1.
    pub lanes: u16,
}

impl Lane {
    /// The only lane of a journal.
    #[must_use]
    pub const fn only(journal: JournalId) -> Self {
        Self { journal, number: 0, lanes: 1 }
    }
}

/// The lane of a device. The slicing never changes: with another one, a lane would skip what another lane had not reached.
#[must_use]
pub fn lane_of(imei: Imei, lanes: u16) -> u16 {
    // The upper bits of a product with an odd constant are well mixed; IMEIs of one purchase differ in the lower ones.
    let mixed = u128::from(imei.get().wrapping_mul(0x9E37_79B9_7F4A_7C15));
    u16::try_from((mixed * u128::from(lanes)) >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_even_and_stay_what_they_are() {
        let imei = |number: u64| Imei::try_from(356_307_042_440_000 + number).unwrap();
        let first: Vec<u16> = (0..12).map(|number| lane_of(imei(number), 4)).collect();
        assert_eq!(
            first,
            [1, 3, 2, 0, 2, 1, 3, 2, 0, 3, 1, 0],
            "changing this loses records of journals that are not empty"
        );
        for lanes in [1, 2, 3, 8] {
            let mut counts = vec![0_u32; usize::from(lanes)];
            (0..8_000).for_each(|number| counts[usize::from(lane_of(imei(number), lanes))] += 1);
            let fair = 8_000 / u32::from(lanes);
            assert!(counts.iter().all(|count| count.abs_diff(fair) < fair / 10), "{counts:?}");
        }
    }
}
