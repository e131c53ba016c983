//! Packets from templates: copies the bytes of a record and overwrites what differs, so that a fleet costs little compared with
//! the service that it loads. The bytes equal those of `teltonika_codecs::encode`; a test compares them.

use teltonika_codecs::{AvlCodec, crc16, encode};

use crate::elements::specs;
use crate::route::{Route, Sample};

/// Makes the packets of one tracker.
pub(super) struct PacketMaker {
    route: Route,
    usual: Template,
    full: Template,
    bytes: Vec<u8>,
}

/// A record's bytes, and the offsets of its elements in them.
struct Template {
    record: Vec<u8>,
    /// Low byte of the event id.
    event: usize,
    /// Offset and width of each value, in the order of the values.
    places: Vec<(usize, usize)>,
}

impl PacketMaker {
    pub(super) fn new(route: Route) -> Self {
        // Record 0 is full, record 1 is not.
        Self { route, usual: Template::new(&route, 1), full: Template::new(&route, 0), bytes: Vec::new() }
    }

    /// The frame of some records.
    pub(super) fn frame(&mut self, count: u8, records: impl Iterator<Item = u64>) -> &[u8] {
        let Self { route, usual, full, bytes } = self;
        bytes.clear();
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[route.codec().id(), count]);
        for n in records {
            let sample = route.sample(n);
            let template = if sample.full { &*full } else { &*usual };
            let begin = bytes.len();
            bytes.extend_from_slice(&template.record);
            template.patch(&sample, &mut bytes[begin..]);
        }
        bytes.push(count);
        let length = u32::try_from(bytes.len() - DATA).unwrap_or(u32::MAX);
        bytes[4..DATA].copy_from_slice(&length.to_be_bytes());
        let crc = crc16(&bytes[DATA..]);
        bytes.extend_from_slice(&u32::from(crc).to_be_bytes());
        bytes
    }
}

impl Template {
    /// A template for all records of the route with the same elements as record n.
    fn new(route: &Route, n: u64) -> Self {
        let mut record = Vec::new();
        encode::record(route.codec(), &route.record(n), &mut record).expect("a route's records fit their codec");
        // Sections 2.1 and 2.2: the fixed part, event id and total, then for each width its count, and ids and values.
        let (id, count) = match route.codec() {
            AvlCodec::Codec8 => (1, 1),
            AvlCodec::Codec16 => (2, 1),
            AvlCodec::Codec8E => (2, 2),
        };
        let specs = specs(route.codec(), route.sample(n).full);
        let mut places = vec![(0, 0); specs.len()];
        let mut at = EVENT + id + count;
        for width in [1, 2, 4, 8] {
            at += count;
            for (place, _) in places.iter_mut().zip(specs).filter(|(_, spec)| spec.width == width) {
                *place = (at + id, width);
                at += id + width;
            }
        }
        Self { record, event: EVENT + id - 1, places }
    }

    fn patch(&self, sample: &Sample, record: &mut [u8]) {
        let Sample { timestamp_ms, priority, longitude_raw, latitude_raw, altitude_m, angle_deg, .. } = sample;
        let Sample { satellites, speed_kmh, event_io_id, full: _, values, .. } = sample;
        record[0..8].copy_from_slice(&timestamp_ms.to_be_bytes());
        record[8] = *priority;
        record[9..13].copy_from_slice(&longitude_raw.to_be_bytes());
        record[13..17].copy_from_slice(&latitude_raw.to_be_bytes());
        record[17..19].copy_from_slice(&altitude_m.to_be_bytes());
        record[19..21].copy_from_slice(&angle_deg.to_be_bytes());
        record[21] = *satellites;
        record[22..24].copy_from_slice(&speed_kmh.to_be_bytes());
        record[self.event] = *event_io_id;
        for ((at, width), value) in self.places.iter().zip(values) {
            match *width {
                1 => record[*at] = value.to_be_bytes()[7],
                2 => record[*at..at + 2].copy_from_slice(&value.to_be_bytes()[6..]),
                4 => record[*at..at + 4].copy_from_slice(&value.to_be_bytes()[4..]),
                _ => record[*at..at + 8].copy_from_slice(&value.to_be_bytes()),
            }
        }
    }
}

/// Offset of the data field, after preamble and length.
const DATA: usize = 8;
/// Offset of the event id in a record.
const EVENT: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imei::test_imei;

    #[test]
    fn packets_are_byte_for_byte_those_of_the_encoder() {
        for number in 0..30 {
            let route = Route::new(test_imei(number), number, 1_780_056_000_000);
            let mut maker = PacketMaker::new(route);
            for first in 0..500 {
                let numbers = first..first + 7;
                let records: Vec<_> = numbers.clone().rev().map(|n| route.record(n)).collect();
                let expected = encode::frame(route.codec(), &records).unwrap();
                assert!(maker.frame(7, numbers.rev()) == expected, "tracker {number}, record {first}");
            }
        }
    }
}
