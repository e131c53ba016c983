//! The data fields that a fleet sends, made beforehand, and the cost of encoding a row.

use std::time::{Duration, Instant};

use odograph::ingest::drain::{BatchBuilder, DuplicateFilter, FilterSizes, Frame, TimeWindow};
use odograph::store::{Batch, encode_copy};
use odograph_fleet::{Route, test_imei};
use odograph_journal::Position;
use teltonika_codecs::Imei;
use teltonika_codecs::encode::frame;

pub(crate) const ANY_TIME: TimeWindow =
    TimeWindow { past: Duration::from_hours(1_000_000), future: Duration::from_hours(1_000_000) };
/// Noon: all rows in one chunk.
const START_MS: u64 = 1_780_056_000_000;
const RECORDS: u64 = 10;

/// All data fields, one after the other.
pub(crate) struct Load {
    bytes: Vec<u8>,
    frames: Vec<Sent>,
    pub(crate) distinct: u64,
}

struct Sent {
    imei: Imei,
    end: usize,
    received_at_us: i64,
    again: bool,
}

/// One frame of the load.
pub(crate) struct LoadFrame<'a> {
    pub(crate) imei: Imei,
    pub(crate) again: bool,
    received_at_us: i64,
    data: &'a [u8],
}

impl Load {
    /// Trackers in turn, newest record first. A percentage of the frames comes a second time a little later, as after a
    /// lost answer.
    pub(crate) fn new(devices: u32, rows: u64, resent: u32) -> Self {
        let routes: Vec<_> = (0..devices).map(|n| Route::new(test_imei(n), n, START_MS)).collect();
        let rounds = rows.div_ceil(RECORDS * u64::from(devices));
        let mut load = Self { bytes: Vec::new(), frames: Vec::new(), distinct: 0 };
        let mut late: std::collections::VecDeque<(usize, Imei, Vec<u8>)> = std::collections::VecDeque::new();
        let mut chance = fastrand::Rng::with_seed(7);
        for round in 0..rounds {
            for route in &routes {
                let records: Vec<_> = (0..RECORDS).rev().map(|n| route.record(round * RECORDS + n)).collect();
                let whole = frame(route.codec(), &records).unwrap();
                let data = &whole[8..whole.len() - 4];
                load.add(route.imei(), data, round, false);
                load.distinct += RECORDS;
                if chance.u32(0..100) < resent {
                    // Trackers stop and wait: they send the unanswered frame next.
                    late.push_back((load.frames.len() + routes.len() - 1, route.imei(), data.to_vec()));
                }
                while late.front().is_some_and(|(at, ..)| *at <= load.frames.len()) {
                    let (_, imei, data) = late.pop_front().unwrap();
                    load.add(imei, &data, round, true);
                }
            }
        }
        for (_, imei, data) in late {
            load.add(imei, &data, rounds, true);
        }
        load
    }

    fn add(&mut self, imei: Imei, data: &[u8], round: u64, again: bool) {
        self.bytes.extend_from_slice(data);
        let received_ms = START_MS + (round + 1) * RECORDS * 1000;
        let received_at_us = i64::try_from(received_ms).unwrap() * 1000;
        self.frames.push(Sent { imei, end: self.bytes.len(), received_at_us, again });
    }

    pub(crate) fn frames(&self) -> impl Iterator<Item = LoadFrame<'_>> {
        let starts = std::iter::once(0).chain(self.frames.iter().map(|sent| sent.end));
        self.frames.iter().zip(starts).map(|(sent, start)| LoadFrame {
            imei: sent.imei,
            again: sent.again,
            received_at_us: sent.received_at_us,
            data: &self.bytes[start..sent.end],
        })
    }
}

impl<'a> LoadFrame<'a> {
    pub(crate) fn frame(&self, position: Position) -> Frame<'a> {
        let Self { imei, received_at_us, data, .. } = *self;
        Frame { imei, received_at_us, position, data, records: u8::try_from(RECORDS).unwrap() }
    }

    /// The lane of a device, as the service chooses it: by a hash of the IMEI.
    pub(crate) fn lane(&self, lanes: u16) -> u16 {
        let mixed = self.imei.get().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        u16::try_from(mixed % u64::from(lanes)).unwrap()
    }
}

/// Moves every row to the new rows.
pub(crate) fn all_as_new(batch: &mut Batch) {
    let Batch { new, perhaps_stored, .. } = batch;
    for row in perhaps_stored.as_slice() {
        let io = perhaps_stored.io(row).unwrap_or_default();
        new.push(row, &[], |text| text.push_str(io));
    }
    perhaps_stored.clear();
}

/// Nanoseconds to encode one row of a sorted batch, and to build it: decode, fingerprint, filter, row, latest
/// position. Medians over two million rows.
pub(crate) fn row_ns(devices: u32, rows: u64) -> (f64, f64) {
    let load = Load::new(devices, rows, 0);
    let mut builder = BatchBuilder::new(ANY_TIME, DuplicateFilter::new(FilterSizes::default()));
    let (mut encode, mut build, rounds) = (Vec::new(), Vec::new(), 2_000_000 / load.distinct);
    for _ in 0..rounds {
        builder.abandon();
        let begun = Instant::now();
        for frame in load.frames() {
            builder.frame(&frame.frame(Position(0))).unwrap();
        }
        build.push(begun.elapsed());
        let batch = builder.batch();
        all_as_new(batch);
        batch.sort();
        let begun = Instant::now();
        encode_copy(&batch.new, |part| {
            std::hint::black_box(part);
        })
        .unwrap();
        encode.push(begun.elapsed());
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        let ns = times[times.len() / 2].as_secs_f64() * 1e9 / load.distinct as f64;
        (ns * 10.0).round() / 10.0
    };
    (median(encode), median(build))
}
