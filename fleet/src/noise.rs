//! Repeatable variety: the same numbers always give the same noise.

/// Mixes two numbers into one that looks random (the finisher of splitmix64).
pub(crate) fn noise(number: u32, n: u64) -> u64 {
    let mut mixed = (u64::from(number) << 32 ^ n).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
