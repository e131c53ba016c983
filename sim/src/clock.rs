//! The wall clock of the simulated world, which can jump.

use std::cell::Cell;

thread_local! {
    static NOW_US: Cell<i64> = const { Cell::new(0) };
}

/// For the service.
pub fn wall() -> i64 {
    NOW_US.get()
}

pub fn set(now_us: i64) {
    NOW_US.set(now_us);
}

/// 2100-01-01: after the build of any version, and the same for all of them.
pub const BEGIN_US: i64 = 4_102_444_800_000_000;
