//! What must hold for every input: round trips, damage that is noticed, and no panic whatever comes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fuzz/src/checks.rs"]
mod checks;

use checks::owned;
use proptest::collection::vec;
use proptest::prelude::*;
use teltonika_codecs::encode::{self, NewElement, NewRecord, NewValue};
use teltonika_codecs::{AvlCodec, Datagram, Frame, Imei, NextItem, StreamItem, StreamPhase, next_item, reply};

fn value(codec: AvlCodec) -> BoxedStrategy<NewValue> {
    let fixed = prop_oneof![
        any::<u8>().prop_map(NewValue::U8),
        any::<u16>().prop_map(NewValue::U16),
        any::<u32>().prop_map(NewValue::U32),
        any::<u64>().prop_map(NewValue::U64),
    ];
    match codec {
        AvlCodec::Codec8E => prop_oneof![4 => fixed, 1 => vec(any::<u8>(), 0..40).prop_map(NewValue::Bytes)].boxed(),
        AvlCodec::Codec8 | AvlCodec::Codec16 => fixed.boxed(),
    }
}

fn id(codec: AvlCodec) -> BoxedStrategy<u16> {
    match codec {
        AvlCodec::Codec8 => (0..=255_u16).boxed(),
        AvlCodec::Codec8E | AvlCodec::Codec16 => any::<u16>().boxed(),
    }
}

prop_compose! {
    fn new_record(codec: AvlCodec)(
        (timestamp_ms, priority, longitude_raw, latitude_raw) in any::<(u64, u8, i32, i32)>(),
        (altitude_m, angle_deg, satellites, speed_kmh, generation) in any::<(i16, u16, u8, u16, u8)>(),
        event_io_id in id(codec),
        elements in vec((id(codec), value(codec)).prop_map(|(id, value)| NewElement { id, value }), 0..30),
    ) -> NewRecord {
        let generation_type = if codec == AvlCodec::Codec16 { generation } else { 0 };
        NewRecord {
            timestamp_ms, priority, longitude_raw, latitude_raw, altitude_m, angle_deg, satellites, speed_kmh,
            event_io_id, generation_type, elements,
        }
    }
}

fn frame() -> impl Strategy<Value = (AvlCodec, Vec<NewRecord>)> {
    prop::sample::select(&AvlCodec::ALL[..]).prop_flat_map(|codec| (Just(codec), vec(new_record(codec), 0..12)))
}

fn by_width(mut record: NewRecord) -> NewRecord {
    record.elements.sort_by_key(|element| match element.value {
        NewValue::U8(_) => 1,
        NewValue::U16(_) => 2,
        NewValue::U32(_) => 4,
        NewValue::U64(_) => 8,
        NewValue::Bytes(_) => 9,
    });
    record
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded((codec, records) in frame()) {
        let bytes = encode::frame(codec, &records).unwrap();
        let Ok(Frame::Avl(avl)) = Frame::open(&bytes) else { panic!("a frame of our own") };
        prop_assert_eq!(avl.codec(), codec);
        let decoded: Vec<_> = avl.records().map(|record| owned(&record)).collect();
        let wire: Vec<_> = avl.records().flat_map(|record| record.wire().to_vec()).collect();
        prop_assert_eq!(&wire[..], &bytes[10..bytes.len() - 5], "the records' bytes are all there, in order");
        for record in avl.records() {
            prop_assert_eq!(record.elements().count(), usize::from(record.announced_elements));
        }
        prop_assert_eq!(decoded, records.into_iter().map(by_width).collect::<Vec<_>>());
    }

    #[test]
    fn datagrams_give_back_both_ids_and_the_device(
        (packet_id, avl_id, number) in (any::<u16>(), any::<u8>(), 0..1_000_000_000_000_000_u64), (codec, records) in frame(),
    ) {
        let imei = Imei::try_from(number).unwrap();
        let bytes = encode::datagram(packet_id, avl_id, imei, codec, &records).unwrap();
        let datagram = Datagram::open(&bytes).unwrap();
        prop_assert_eq!((datagram.packet_id, datagram.avl_packet_id, datagram.imei), (packet_id, avl_id, imei));
        prop_assert_eq!(usize::from(datagram.avl.count()), records.len());
    }

    #[test]
    fn commands_give_back_their_payload(payload in vec(any::<u8>(), 0..300), number in 0..1_000_000_000_000_000_u64) {
        let imei = Imei::try_from(number).unwrap();
        for (command, device) in [(reply::codec12_command(&payload), None), (reply::codec14_command(imei, &payload), Some(imei))] {
            let Ok(Frame::Message(message)) = Frame::open(&command) else { panic!("a command of our own") };
            prop_assert_eq!((message.payload, message.imei, message.kind), (&payload[..], device, 5));
        }
    }

    #[test]
    fn every_imei_survives_all_its_forms(number in 0..1_000_000_000_000_000_u64) {
        let imei = Imei::try_from(number).unwrap();
        prop_assert_eq!(imei.to_string().parse(), Ok(imei));
        prop_assert_eq!(Imei::from_ascii(&imei.to_ascii()), Ok(imei));
        prop_assert_eq!(Imei::from_packed(imei.to_packed()), Some(imei));
        let NextItem::Item { item: StreamItem::Login(read), .. } = next_item(&encode::login(imei), StreamPhase::Login) else { panic!() };
        prop_assert_eq!(read, imei);
    }

    /// The CRC covers the data field; flips in preamble and length break the framing, flips in the CRC the check.
    #[test]
    fn one_flipped_bit_is_always_noticed((codec, records) in frame(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = encode::frame(codec, &records).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Frame::open(&bytes).is_err());
        let noticed = match next_item(&bytes, StreamPhase::Frames) {
            // 0xFF cannot come of one flip in the zero preamble, and 00 0F needs four.
            NextItem::Item { item: StreamItem::Frame(_) | StreamItem::Login(_) | StreamItem::Ping, .. } => false,
            NextItem::Item { item: StreamItem::Rejected(_), .. } | NextItem::Incomplete { .. } | NextItem::Fatal(_) => true,
        };
        prop_assert!(noticed, "a flip at byte {at}");
    }

    #[test]
    fn nothing_panics_loops_or_reads_beyond(bytes in vec(any::<u8>(), 0..400)) {
        checks::stream(&bytes);
        checks::frame(&bytes);
        checks::datagram(&bytes);
        checks::structured(&bytes);
    }
}
