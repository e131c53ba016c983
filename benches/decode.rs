//! Decoding next to the crate nom-teltonika, on the same bytes in the same run.
//!
//! `validate/…`: open a frame, which checks CRC, counts and every byte of the structure. `walk/…`: also read every field of
//! every record and every element's id and value. Cases: `1` and `10` records of Codec 8E, the `fullest` 8E frame that both
//! decoders take, and `mixed`: 64 MiB of all codecs and sizes, too large for any cache.

#![allow(clippy::unwrap_used, clippy::many_single_char_names, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nom_teltonika::decoder::take_frame;
use nom_teltonika::protocol::{FrameView, IoValueView};
use teltonika_codecs::encode::{self, NewElement, NewRecord, NewValue};
use teltonika_codecs::{AvlCodec, Frame, Value};

fn decode(criterion: &mut Criterion) {
    let frame = |records: u64| encode::frame(AvlCodec::Codec8E, &records_of(AvlCodec::Codec8E, records, 0)).unwrap();
    let fullest = (1..=255).map(frame).take_while(|frame| take_frame(&mut &frame[..]).is_ok()).last().unwrap();
    let cases = [("1", vec![frame(1)]), ("10", vec![frame(10)]), ("fullest", vec![fullest]), ("mixed", mixed())];
    for (name, walks) in [("validate", false), ("walk", true)] {
        let mut group = criterion.benchmark_group(name);
        for (case, frames) in &cases {
            group.throughput(Throughput::Bytes(frames.iter().map(|frame| frame.len() as u64).sum()));
            if *case == "mixed" {
                group.sample_size(10);
            }
            group.bench_function(BenchmarkId::new("odograph", case), |bench| {
                bench.iter(|| frames.iter().map(|frame| odograph(black_box(frame), walks)).fold(0, u64::wrapping_add));
            });
            group.bench_function(BenchmarkId::new("nom-teltonika", case), |bench| {
                bench.iter(|| frames.iter().map(|frame| other(black_box(frame), walks)).fold(0, u64::wrapping_add));
            });
        }
        group.finish();
    }
    for frame in cases.iter().flat_map(|(_, frames)| frames) {
        assert_eq!(odograph(frame, true), other(frame, true), "both read the same");
    }
}

/// Opens a frame and, if requested, adds up everything in it.
fn odograph(frame: &[u8], walks: bool) -> u64 {
    let Ok(Frame::Avl(avl)) = Frame::open(frame) else { panic!("an AVL frame") };
    let mut sum = u64::from(avl.count());
    if walks {
        for record in avl.records() {
            sum = sum
                .wrapping_add(record.timestamp_ms)
                .wrapping_add(u64::from(record.longitude_raw.cast_unsigned()))
                .wrapping_add(u64::from(record.latitude_raw.cast_unsigned()))
                .wrapping_add(u64::from(record.altitude_m.cast_unsigned()))
                .wrapping_add(u64::from(record.angle_deg))
                .wrapping_add(u64::from(record.satellites))
                .wrapping_add(u64::from(record.speed_kmh))
                .wrapping_add(u64::from(record.event_io_id));
            sum = record.elements().fold(sum, |sum, element| {
                let value = match element.value {
                    Value::U8(value) => value.into(),
                    Value::U16(value) => value.into(),
                    Value::U32(value) => value.into(),
                    Value::U64(value) => value,
                    Value::Bytes(bytes) => bytes.len() as u64,
                };
                sum.wrapping_add(u64::from(element.id)).wrapping_add(value)
            });
        }
    }
    sum
}

fn other(frame: &[u8], walks: bool) -> u64 {
    let Ok(FrameView::Avl(packet)) = take_frame(&mut &frame[..]) else { panic!("an AVL frame") };
    let mut sum = packet.records().len() as u64;
    if walks {
        for record in packet.records() {
            let gps = record.gps();
            sum = sum
                .wrapping_add(u64::from(record.timestamp()))
                .wrapping_add(u64::from(gps.longitude_raw.cast_unsigned()))
                .wrapping_add(u64::from(gps.latitude_raw.cast_unsigned()))
                .wrapping_add(u64::from(gps.altitude_meters))
                .wrapping_add(u64::from(gps.angle_degrees))
                .wrapping_add(u64::from(gps.satellites))
                .wrapping_add(u64::from(gps.speed_kph))
                .wrapping_add(record.event_io_id().map_or(0, |id| u64::from(u16::from(id))));
            sum = record.io_elements().fold(sum, |sum, element| {
                let value = match element.value() {
                    IoValueView::U8(value) => value.into(),
                    IoValueView::U16(value) => value.into(),
                    IoValueView::U32(value) => value.into(),
                    IoValueView::U64(value) => value,
                    IoValueView::Bytes(bytes) => bytes.len() as u64,
                };
                sum.wrapping_add(u64::from(u16::from(element.id()))).wrapping_add(value)
            });
        }
    }
    sum
}

/// 64 MiB of frames: all codecs, 1 to 10 records, values that change.
fn mixed() -> Vec<Vec<u8>> {
    let (mut frames, mut bytes) = (Vec::new(), 0);
    for n in 0.. {
        let codec = AvlCodec::ALL[n % 3];
        let frame = encode::frame(codec, &records_of(codec, 1 + (n as u64 * 7) % 10, n as u64)).unwrap();
        bytes += frame.len();
        frames.push(frame);
        if bytes >= 64 << 20 {
            break;
        }
    }
    frames
}

/// Records as an FMB920 sends them: fourteen elements, and one of variable length now and then if the codec has them.
fn records_of(codec: AvlCodec, count: u64, seed: u64) -> Vec<NewRecord> {
    let element = |id, value| NewElement { id, value };
    (0..count)
        .map(|n| {
            let noise = (seed * 251 + n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let [a, b, c, d, e, f, g, h] = noise.to_be_bytes();
            let mut elements = vec![
                element(239, NewValue::U8(a & 1)),
                element(240, NewValue::U8(b & 1)),
                element(80, NewValue::U8(c % 6)),
                element(21, NewValue::U8(d % 6)),
                element(200, NewValue::U8(0)),
                element(69, NewValue::U8(e % 4)),
                element(181, NewValue::U16(f.into())),
                element(182, NewValue::U16(g.into())),
                element(66, NewValue::U16(12_000 + u16::from(h))),
                element(24, NewValue::U16(a.into())),
                element(205, NewValue::U16(u16::from_be_bytes([b, c]))),
                element(241, NewValue::U32(24_601)),
                element(16, NewValue::U32(u32::from_be_bytes([0, d, e, f]))),
                element(78, NewValue::U64(noise)),
            ];
            if codec == AvlCodec::Codec8E && n % 5 == 4 {
                elements.push(element(256, NewValue::Bytes(b"WVWZZZ1JZXW000001".to_vec())));
            }
            NewRecord {
                timestamp_ms: 1_780_000_000_000 + n * 1000 + noise % 900,
                priority: u8::from(a == 7),
                longitude_raw: 250_000_000 + i32::from(b) * 1000,
                latitude_raw: 540_000_000 - i32::from(c) * 1000,
                altitude_m: i16::from(d) - 20,
                angle_deg: u16::from(e),
                satellites: f % 16,
                speed_kmh: u16::from(g),
                event_io_id: if h < 8 { 239 } else { 0 },
                generation_type: 7,
                elements,
            }
        })
        .collect()
}

criterion_group!(benches, decode);
criterion_main!(benches);
