//! The drain: takes entries, decodes them, builds rows, and commits batch by batch. One or more lanes, each a slice of the
//! devices with a thread and a connection of its own.
//!
//! ```text
//! journal ─ tail ─┐
//!                 ├─► builder: rows, duplicate filter, newest positions ─► batch ─► lane ─► store
//! intake ─ inbox ─┘                                                         └─ committed ─► release, or receipts
//! ```
//!
//! While a batch is being committed further entries queue up, so batches grow with the backlog by themselves. Errors are
//! met by committing the same batch again, for as long as it takes: nothing is dropped.

mod builder;
mod clock;
mod commit;
mod feed;
mod gap;
mod inbox;
mod lane;
mod newest;
mod rows;
mod seen;
mod shared;
mod tail;
mod waiting;

use std::time::Duration;

use teltonika_codecs::Imei;

pub use builder::{BatchBuilder, Frame, TimeWindow, open as open_frame, stored as stored_message};
pub use clock::{BUILT_US, WrongClock, judge as judge_clock};
pub use feed::Feed;
pub use gap::GapFile;
pub use inbox::Inbox;
pub use lane::{Drain, Surroundings};
pub use newest::NewestPositions;
pub use rows::{BuiltRow, NotAsAccepted};
pub use seen::{Seen, SeenKeys, SeenOfDevice, Sizes};
pub use shared::Draining;
pub use tail::{Tail, believed};
pub use waiting::NotKnown;

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Most rows in a batch; the frame that reaches it is still taken whole.
    pub rows: usize,
    /// How long the first frame of a batch waits for others.
    pub linger: Duration,
    /// Device times that are believed.
    pub window: TimeWindow,
    /// How many records are remembered.
    pub remembered: Sizes,
}

/// The lane of a device, of so many. Fixed for ever: with another slicing, a lane would skip what was behind in another one.
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
