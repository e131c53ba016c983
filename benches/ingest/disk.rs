//! The latency of the disk itself: write and fdatasync of 1 KiB, one after the other, into space already written.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Durations of syncs, in milliseconds.
pub struct Syncs {
    pub p50: f64,
    pub p99: f64,
    /// The share of syncs within each number of milliseconds.
    pub shares: Vec<(f64, f64)>,
}

/// Syncs until the stop.
pub fn syncs_until(stop: &AtomicBool) -> Syncs {
    let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = File::create(directory.path().join("plain")).unwrap();
    file.write_all_at(&vec![0; LENGTH], 0).unwrap();
    file.sync_all().unwrap();
    let (mut took, mut at) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        file.write_all_at(&[7; 1024], at % LENGTH as u64).unwrap();
        file.sync_data().unwrap();
        took.push(begun.elapsed());
        at += 1024;
    }
    took.sort_unstable();
    let at = |thousandth: usize| took[(took.len() * thousandth / 1000).min(took.len() - 1)].as_secs_f64() * 1e3;
    Syncs { p50: at(500), p99: at(990), shares: (0..1000).map(|n| (at(n), n as f64 / 1000.0)).collect() }
}

/// Measures syncs next to some work.
pub fn syncs_beside(work: impl FnOnce()) -> Syncs {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let syncs = scope.spawn(|| syncs_until(&stop));
        work();
        stop.store(true, Ordering::Relaxed);
        syncs.join().unwrap()
    })
}

/// Measures syncs alone.
pub fn syncs_idle(time: Duration) -> Syncs {
    syncs_beside(|| std::thread::sleep(time))
}

const LENGTH: usize = 16 << 20;
