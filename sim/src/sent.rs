//! Records and messages of trackers: made once, packed into frames again and again, and known by their bytes.

use std::collections::HashMap;

use fastrand::Rng;
use odograph::store::Key;

use crate::database::Tables;
use teltonika_codecs::encode::{self, NewElement, NewRecord, NewValue};
use teltonika_codecs::{AvlCodec, Imei, crc16};

/// A record or message. The database must hold it once it was acknowledged.
pub struct Item {
    pub imei: u64,
    pub what: What,
    /// A service has acknowledged it.
    pub acked: bool,
    /// The database has held it.
    pub was_stored: bool,
    /// The database went back, and no journal holds it any more. A process must report that.
    pub gone: bool,
}

pub enum What {
    Record {
        key: Key,
        wire: Vec<u8>,
        sent: NewRecord,
    },
    /// A data field with a right checksum that cannot be decoded.
    Undecodable(Vec<u8>),
    Message(Vec<u8>),
}

impl Item {
    /// Whether the database holds it, as a row or in quarantine.
    pub fn is_in(&self, tables: &Tables) -> bool {
        match &self.what {
            What::Record { key, wire, .. } => {
                tables.positions.contains_key(key) || tables.holds_quarantined(self.imei, wire)
            }
            What::Undecodable(data) => tables.holds_quarantined(self.imei, data),
            What::Message(payload) => {
                tables.messages.values().any(|(imei, stored)| *imei == self.imei && stored == payload)
            }
        }
    }
}

#[derive(Default)]
pub struct Sent {
    pub items: Vec<Item>,
    /// Items by device and data field.
    frames: HashMap<(u64, Vec<u8>), Vec<usize>>,
    pub by_key: HashMap<Key, usize>,
}

impl Sent {
    /// A new record, with a time of its own or that of the one before it, and its number.
    pub fn record(&mut self, rng: &mut Rng, imei: Imei, base_ms: u64, number: u64, same: Option<u64>) -> usize {
        let timestamp_ms = match (rng.u8(..), same) {
            (0..12, Some(same)) => same,
            // A stray date.
            (12..16, _) => 1_072_915_200_000 + number,
            // A clock that runs ahead.
            (16..22, _) => base_ms + 600_000 + number * 1000,
            _ => base_ms + number * 1000,
        };
        let sent = NewRecord {
            timestamp_ms,
            priority: rng.u8(0..3),
            longitude_raw: rng.i32(-1_800_000_000..1_800_000_000),
            latitude_raw: rng.i32(-900_000_000..900_000_000),
            altitude_m: rng.i16(..),
            angle_deg: rng.u16(0..360),
            satellites: if rng.u8(..) < 30 { 0 } else { rng.u8(4..20) },
            speed_kmh: rng.u16(0..200),
            event_io_id: 239,
            generation_type: 0,
            elements: vec![NewElement { id: 239, value: NewValue::U8(rng.u8(0..2)) }],
        };
        let mut wire = Vec::new();
        encode::record(AvlCodec::Codec8E, &sent, &mut wire).unwrap();
        let fingerprint = crc32fast::hash(&wire).cast_signed();
        let key = Key { imei: imei.get(), ts_ms: i64::try_from(timestamp_ms).unwrap(), fingerprint };
        self.by_key.insert(key, self.items.len());
        self.item(imei, What::Record { key, wire, sent })
    }

    fn item(&mut self, imei: Imei, what: What) -> usize {
        self.items.push(Item { imei: imei.get(), what, acked: false, was_stored: false, gone: false });
        self.items.len() - 1
    }

    pub fn time_of(&self, item: usize) -> Option<u64> {
        match &self.items[item].what {
            What::Record { sent, .. } => Some(sent.timestamp_ms),
            _ => None,
        }
    }

    /// A frame of records, as bytes.
    pub fn frame(&mut self, imei: Imei, items: &[usize]) -> Vec<u8> {
        let records = items.iter().filter_map(|item| match &self.items[*item].what {
            What::Record { sent, .. } => Some(sent.clone()),
            _ => None,
        });
        let frame = encode::frame(AvlCodec::Codec8E, &records.collect::<Vec<_>>()).unwrap();
        self.know(imei, &frame, items);
        frame
    }

    /// A frame with a wrong count and a right checksum.
    pub fn undecodable(&mut self, rng: &mut Rng, imei: Imei) -> (Vec<u8>, usize) {
        let mut data = vec![0x8E, 1];
        data.extend((0..12).map(|_| rng.u8(..)));
        data.push(2);
        let item = self.item(imei, What::Undecodable(data.clone()));
        let frame = framed(&data);
        self.know(imei, &frame, &[item]);
        (frame, item)
    }

    pub fn message(&mut self, rng: &mut Rng, imei: Imei) -> (Vec<u8>, usize) {
        let payload: Vec<u8> = (0..8).map(|_| rng.u8(b'a'..=b'z')).collect();
        let mut data = vec![0x0C, 1, 0x06];
        data.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        data.extend(&payload);
        data.push(1);
        let item = self.item(imei, What::Message(payload));
        let frame = framed(&data);
        self.know(imei, &frame, &[item]);
        (frame, item)
    }

    fn know(&mut self, imei: Imei, frame: &[u8], items: &[usize]) {
        let data = frame[8..frame.len() - 4].to_vec();
        self.frames.insert((imei.get(), data), items.to_vec());
    }

    /// What a journal's entry holds; `None` for bytes that no tracker sent.
    pub fn of_entry(&self, imei: u64, data: &[u8]) -> Option<&[usize]> {
        self.frames.get(&(imei, data.to_vec())).map(Vec::as_slice)
    }
}

fn framed(data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    frame.extend(data);
    frame.extend(u32::from(crc16(data)).to_be_bytes());
    frame
}
