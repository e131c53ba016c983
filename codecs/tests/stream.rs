//! The incremental front: split points, glued items, refusals before waiting.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{bytes, example, examples};
use teltonika_codecs::encode::{self, NewRecord};
use teltonika_codecs::{AvlCodec, Frame, NextItem, RejectionReason, StreamItem, StreamPhase, crc16, next_item};

/// A frame around any data field, with a right CRC.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [&[0; 4], &length.to_be_bytes()[..], data, &u32::from(crc16(data)).to_be_bytes()].concat()
}

#[test]
fn every_prefix_of_every_example_is_incomplete_and_says_how_much_is_missing() {
    for example in examples().iter().filter(|e| e["transport"] == "tcp" && e["direction"] == "device->server") {
        let whole = bytes(example);
        let phase = if example["codec"].is_null() { StreamPhase::Login } else { StreamPhase::Frames };
        for cut in 0..whole.len() {
            match next_item(&whole[..cut], phase) {
                NextItem::Incomplete { at_least, total } => {
                    assert!(at_least >= 1 && cut + at_least <= whole.len(), "{example} at {cut}");
                    assert!(total.is_none_or(|total| total == whole.len()));
                }
                other => panic!("{other:?} for {cut} bytes of {example}"),
            }
        }
        let NextItem::Item { consumed, .. } = next_item(&whole, phase) else { panic!("whole") };
        assert_eq!(consumed, whole.len());
    }
}

#[test]
fn glued_items_come_one_by_one() {
    let login = bytes(&example("login-imei"));
    let frame = bytes(&example("codec8e-tcp-2-variable-element"));
    let message = bytes(&example("codec12-getio-response"));
    let glued = [&[0xFF, 0xFF][..], &login, &[0xFF], &frame, &message, &[0xFF], &frame, &frame[..9]].concat();
    let (mut rest, mut phase, mut seen) = (&glued[..], StreamPhase::Login, String::new());
    while let NextItem::Item { item, consumed } = next_item(rest, phase) {
        seen.push(match item {
            StreamItem::Ping => 'p',
            StreamItem::Login(_) => 'l',
            StreamItem::Frame(Frame::Avl(_)) => 'a',
            StreamItem::Frame(Frame::Message(_)) => 'm',
            StreamItem::Frame(Frame::EmptyMessage(_)) | StreamItem::Rejected(_) => '?',
        });
        if matches!(item, StreamItem::Login(_)) {
            phase = StreamPhase::Frames;
        }
        rest = &rest[consumed..];
    }
    assert_eq!(seen, "pplpampa");
    assert_eq!(rest, &frame[..9]);
}

#[test]
fn strangers_are_refused_by_their_first_bytes() {
    for (first, offset) in [(&b"G"[..], 0), (b"\x16\x03\x01", 0), (b"SSH-2.0", 0), (b"\x00\x10", 1), (b"\x00\x00", 1)] {
        let NextItem::Fatal(wrong) = next_item(first, StreamPhase::Login) else { panic!("{first:?} is no tracker") };
        assert_eq!((wrong.reason, wrong.offset), (RejectionReason::BadPreamble, offset), "{first:?}");
    }
    let NextItem::Fatal(wrong) = next_item(b"\x00\x0F35630a", StreamPhase::Login) else {
        panic!("a letter in an IMEI")
    };
    assert_eq!((wrong.reason, wrong.offset), (RejectionReason::BadImei, 7));
}

#[test]
fn limits_are_checked_before_waiting() {
    let head = |length: u32, rest: &[u8]| [&[0; 4], &length.to_be_bytes()[..], rest].concat();
    for (bytes, refused) in [
        (head(u32::MAX, &[]), true),
        (head(65_537, &[]), true),
        (head(65_536, &[0x0C]), false),
        (head(16_385, &[0x08]), true),
        (head(16_385, &[0x77]), true),
        (head(16_385, &[]), false),
        (head(16_384, &[0x8E]), false),
    ] {
        match next_item(&bytes, StreamPhase::Frames) {
            NextItem::Fatal(wrong) => {
                assert!(refused && wrong.reason == RejectionReason::TooLarge && wrong.offset == 4, "{bytes:?}");
            }
            other => assert!(!refused, "{other:?} for {bytes:?}"),
        }
    }
    let NextItem::Fatal(wrong) = next_item(&[0, 0, 7], StreamPhase::Frames) else { panic!("no preamble") };
    assert_eq!((wrong.reason, wrong.offset), (RejectionReason::BadPreamble, 2));
}

#[test]
fn broken_frames_can_be_skipped_and_name_reason_and_offset() {
    let good = bytes(&example("codec8-tcp-3-two-records"));
    let data = &good[8..good.len() - 4];
    let changed = |at: usize, byte: u8| {
        let mut data = data.to_vec();
        data[at] = byte;
        framed(&data)
    };
    let mut wrong_crc = good.clone();
    wrong_crc[30] ^= 1;
    let mut wide_crc = good.clone();
    wide_crc[good.len() - 4] = 1;
    let extra_byte = framed(&[&data[..data.len() - 1], &[0, 2]].concat());
    for (frame, reason, offset) in [
        (wrong_crc, RejectionReason::CrcMismatch, 8),
        (wide_crc, RejectionReason::CrcMismatch, 8),
        (changed(0, 0x07), RejectionReason::UnsupportedCodec, 8),
        (changed(data.len() - 1, 3), RejectionReason::CountMismatch, 8 + data.len() - 1),
        (changed(28, 200), RejectionReason::BadStructure, 0),
        (extra_byte, RejectionReason::BadStructure, 8 + data.len() - 1),
    ] {
        match next_item(&frame, StreamPhase::Frames) {
            NextItem::Item { item: StreamItem::Rejected(wrong), consumed } => {
                assert_eq!(consumed, frame.len());
                assert_eq!(wrong.reason, reason, "{wrong}");
                assert!(offset == 0 || wrong.offset == offset, "{wrong}, expected at {offset}");
                assert_eq!(Frame::open(&frame).unwrap_err(), wrong);
            }
            other => panic!("{other:?} instead of {reason}"),
        }
    }
}

#[test]
fn a_length_below_any_data_field_is_lost_framing() {
    for data in [&[][..], &[0x08], &[0x08, 0x00], &[0x0C, 0x00]] {
        let frame = framed(data);
        // Known as soon as the length is there.
        for bytes in [&frame[..8], &frame] {
            let NextItem::Fatal(rejection) = next_item(bytes, StreamPhase::Frames) else { panic!("{data:?}") };
            assert_eq!((rejection.reason, rejection.offset), (RejectionReason::TooShort, 4));
        }
        assert_eq!(Frame::open(&frame).unwrap_err().reason, RejectionReason::TooShort);
    }
}

#[test]
fn empty_frames_are_no_error() {
    for codec in AvlCodec::ALL {
        let frame = encode::frame(codec, &[]).unwrap();
        let NextItem::Item { item: StreamItem::Frame(Frame::Avl(avl)), .. } = next_item(&frame, StreamPhase::Frames)
        else {
            panic!()
        };
        assert_eq!((avl.count(), avl.records().count()), (0, 0));
    }
    let empty = framed(&[0x0C, 0, 0]);
    let NextItem::Item { item, .. } = next_item(&empty, StreamPhase::Frames) else { panic!() };
    assert!(matches!(item, StreamItem::Frame(Frame::EmptyMessage(_))));
}

#[test]
fn the_largest_frames_are_read() {
    let record = NewRecord { timestamp_ms: u64::MAX, ..NewRecord::default() };
    let frame = encode::frame(AvlCodec::Codec8E, &vec![record; 255]).unwrap();
    let Ok(Frame::Avl(avl)) = Frame::open(&frame) else { panic!("255 records") };
    assert_eq!(avl.records().count(), 255);
    assert!(avl.records().all(|record| record.timestamp_ms == u64::MAX && record.calendar_ms().is_none()));
}
