//! Replays what the fuzzers found worth keeping: an input that once broke a check never does so again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fuzz/src/checks.rs"]
mod checks;

use std::fs;
use std::path::Path;

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&corpus).unwrap_or_else(|wrong| panic!("{}: {wrong}", corpus.display())) {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(std::panic::catch_unwind(|| check(&bytes)).is_ok(), "{}", path.display());
        inputs += 1;
    }
    assert!(inputs >= 20, "{target} has {inputs} inputs");
}

#[test]
fn stream() {
    replay("stream", checks::stream);
}

#[test]
fn frame() {
    replay("frame", checks::frame);
}

#[test]
fn datagram() {
    replay("datagram", checks::datagram);
}

#[test]
fn structured() {
    replay("structured", checks::structured);
}
