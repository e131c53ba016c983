//! What the disk itself needs: write and fdatasync of 1 KiB, one after the other, into space that was written before.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// p50 and p99 in milliseconds, of syncs until the stop.
pub fn syncs_until(stop: &AtomicBool) -> (f64, f64) {
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
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    (at(50), at(99))
}

/// The same beside some work.
pub fn syncs_beside(work: impl FnOnce()) -> (f64, f64) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let syncs = scope.spawn(|| syncs_until(&stop));
        work();
        stop.store(true, Ordering::Relaxed);
        syncs.join().unwrap()
    })
}

/// The same with nothing beside.
pub fn syncs_idle(time: Duration) -> (f64, f64) {
    syncs_beside(|| std::thread::sleep(time))
}

const LENGTH: usize = 16 << 20;
