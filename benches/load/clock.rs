//! Clocks that other processes share, and what this one used of the processors.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Seconds of the machine's monotonic clock.
pub fn monotonic_s() -> f64 {
    seconds(clock_gettime(ClockId::Monotonic))
}

/// The same in nanoseconds: cheap enough for each packet.
pub(super) fn monotonic_ns() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    u64::try_from(tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(tv_nsec).unwrap_or(0)
}

/// Processor time of this process: all, and the part outside the system, which is counted in hundredths.
pub(super) fn cpu_s() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let user: f64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(11).unwrap().parse().unwrap();
    (seconds(clock_gettime(ClockId::ProcessCPUTime)), user / 100.0)
}

fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
