//! What must hold for any bytes at each entry point: no panic, no read beyond the item, refusals inside it, and views that
//! give what their counts promise. The fuzz targets and the ordinary tests run the same checks.

use teltonika_codecs::encode::{self, NewElement, NewRecord, NewValue};
use teltonika_codecs::{
    AvlData, Datagram, Frame, Message, NextItem, Record, Rejection, StreamItem, StreamPhase, Value, crc16, dictionary,
    next_item,
};

/// The incremental front, item by item, in both phases; and every prefix of the first item.
pub fn stream(bytes: &[u8]) {
    for phase in [StreamPhase::Login, StreamPhase::Frames] {
        let mut rest = bytes;
        loop {
            match next_item(rest, phase) {
                NextItem::Item { item, consumed } => {
                    assert!(consumed >= 1 && consumed <= rest.len());
                    prefixes(&rest[..consumed], phase);
                    if let StreamItem::Frame(Frame::Avl(avl)) = item {
                        walk(&avl);
                    }
                    rest = &rest[consumed..];
                }
                NextItem::Incomplete { at_least, total } => {
                    assert!(at_least >= 1);
                    assert!(total.is_none_or(|total| total == rest.len() + at_least && total <= 65_536 + 12));
                    break;
                }
                NextItem::Fatal(rejection) => break assert!(rejection.offset <= rest.len()),
            }
        }
    }
}

/// A whole TCP frame, and its data field alone.
pub fn frame(bytes: &[u8]) {
    match Frame::open(bytes) {
        Ok(Frame::Avl(avl)) => walk(&avl),
        Ok(Frame::Message(message)) => assert!(message.payload.len() < bytes.len()),
        Ok(Frame::EmptyMessage(_)) => {}
        Err(rejection) => inside(rejection, bytes),
    }
    match AvlData::open(bytes) {
        Ok(avl) => walk(&avl),
        Err(rejection) => inside(rejection, bytes),
    }
    match Message::open(bytes) {
        Ok(message) => assert!(message.is_none_or(|message| message.payload.len() < bytes.len())),
        Err(rejection) => inside(rejection, bytes),
    }
}

/// A datagram.
pub fn datagram(bytes: &[u8]) {
    match Datagram::open(bytes) {
        Ok(datagram) => walk(&datagram.avl),
        Err(rejection) => inside(rejection, bytes),
    }
}

/// The bytes as the body of a frame and of a datagram whose envelope is right: codec, equal counts, length and CRC.
pub fn structured(bytes: &[u8]) {
    let [selector, count, body @ ..] = bytes else { return };
    let codec = CODECS[usize::from(*selector) % CODECS.len()];
    let data = [&[codec, *count], body, &[*count]].concat();
    let length = u32::try_from(data.len()).expect("fuzz inputs are small");
    let crc = u32::from(crc16(&data));
    let whole = [&[0; 4], &length.to_be_bytes()[..], &data, &crc.to_be_bytes()].concat();
    frame(&whole);
    stream(&whole);
    let header = [&[0xCA, 0xFE, 0x01, 0x05, 0x00, 0x0F][..], b"352093086403655", &data].concat();
    if let Ok(length) = u16::try_from(header.len()) {
        datagram(&[&length.to_be_bytes()[..], &header].concat());
    }
    if let Ok(avl) = AvlData::open(&data) {
        let records: Vec<_> = avl.records().map(|record| owned(&record)).collect();
        let again = match encode::frame(avl.codec(), &records) {
            Ok(again) => again,
            // The groups govern: four of them can hold more elements than the one-byte total of Codec 8 and 16 can say.
            Err(encode::EncodeError::TooManyElements) => {
                return assert!(records.iter().any(|record| record.elements.len() > usize::from(u8::MAX)));
            }
            Err(other) => panic!("{other}, though it was decoded"),
        };
        let Ok(Frame::Avl(second)) = Frame::open(&again) else { panic!("a frame of our own") };
        assert!(second.records().map(|record| owned(&record)).eq(records));
    }
}

/// A decoded record in the form that is encoded.
pub fn owned(record: &Record<'_>) -> NewRecord {
    let value = |value| match value {
        Value::U8(value) => NewValue::U8(value),
        Value::U16(value) => NewValue::U16(value),
        Value::U32(value) => NewValue::U32(value),
        Value::U64(value) => NewValue::U64(value),
        Value::Bytes(bytes) => NewValue::Bytes(bytes.to_vec()),
    };
    NewRecord {
        timestamp_ms: record.timestamp_ms,
        priority: record.priority,
        longitude_raw: record.longitude_raw,
        latitude_raw: record.latitude_raw,
        altitude_m: record.altitude_m,
        angle_deg: record.angle_deg,
        satellites: record.satellites,
        speed_kmh: record.speed_kmh,
        event_io_id: record.event_io_id,
        generation_type: record.generation_type.unwrap_or(0),
        elements: record.elements().map(|e| NewElement { id: e.id, value: value(e.value) }).collect(),
    }
}

fn walk(avl: &AvlData<'_>) {
    assert_eq!(avl.records().count(), usize::from(avl.count()));
    for record in avl.records() {
        // The smallest element takes an id and a byte; so elements are bounded by the record's own bytes.
        assert!(record.elements().count() <= record.wire().len() / 2);
        assert!(record.longitude().abs() <= 214.75 && record.latitude().abs() <= 214.75);
        let _ = (record.has_position(), record.calendar_ms());
        for element in record.elements() {
            let _ = dictionary::element(element.id).and_then(|info| info.scaled(element.value));
        }
    }
}

/// Every shorter part of an item asks for more, or for as much as is missing.
fn prefixes(item: &[u8], phase: StreamPhase) {
    for cut in [0, 1, 2, 4, 7, 8, 9, item.len() / 2, item.len() - 1] {
        if let Some(part) = item.get(..cut).filter(|part| part.len() < item.len()) {
            match next_item(part, phase) {
                NextItem::Incomplete { at_least, .. } => assert!(part.len() + at_least <= item.len()),
                other => panic!("{other:?} for {cut} bytes of {}", item.len()),
            }
        }
    }
}

fn inside(rejection: Rejection, bytes: &[u8]) {
    assert!(rejection.offset <= bytes.len(), "{rejection} of {}", bytes.len());
}

const CODECS: [u8; 7] = [0x08, 0x8E, 0x10, 0x0C, 0x0D, 0x0E, 0x0F];
