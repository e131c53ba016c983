//! Decoding allocates nothing, whether it succeeds or refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{bytes, examples};
use teltonika_codecs::{Datagram, Frame, NextItem, StreamItem, StreamPhase, next_item};

#[test]
fn no_item_costs_an_allocation() {
    let items: Vec<_> = examples().iter().map(bytes).collect();
    // Processor features are looked up, and remembered, by the first CRC.
    let _ = Frame::open(&items[5]);
    let mut read = 0;
    let measured = allocation_counter::measure(|| {
        for item in &items {
            for phase in [StreamPhase::Login, StreamPhase::Frames] {
                if let NextItem::Item { item: StreamItem::Frame(Frame::Avl(avl)), .. } = next_item(item, phase) {
                    read += avl.records().flat_map(|record| record.elements()).count();
                }
            }
            if let Ok(datagram) = Datagram::open(item) {
                read += datagram.avl.records().flat_map(|record| record.elements()).count();
            }
            let _ = Frame::open(&item[..item.len() - 1]);
        }
    });
    assert!(read > 90, "{read} elements were read");
    assert_eq!(measured.count_total, 0);
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(vec![1]))).count_total, 1);
}
