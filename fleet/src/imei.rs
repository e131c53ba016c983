//! The IMEIs of simulated trackers.

use teltonika_codecs::Imei;

/// IMEI of a simulated tracker: from a test range that no manufacturer gives out, with leading zeros.
#[must_use]
pub fn test_imei(number: u32) -> Imei {
    Imei::try_from(TEST_RANGE + u64::from(number)).expect("the range and every u32 stay below 10^15")
}

/// Reporting body 00 is reserved for tests.
const TEST_RANGE: u64 = 1_000_000_000_000;
