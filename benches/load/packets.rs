//! The frames of one tracker, made before the clock starts, one after the other in one buffer.
//!
//! A tracker that goes on without end drives its few packets again and again: only the times move, and with them the CRC.

use std::ops::Range;

use odograph_fleet::{Route, test_imei};
use teltonika_codecs::{Imei, crc16, encode};

use super::Settings;

pub(super) struct Packets {
    imei: Imei,
    bytes: Vec<u8>,
    /// The end of each frame.
    ends: Vec<u32>,
    /// The offset of each record's time in the buffer, packet by packet.
    times: Vec<u32>,
    records: u8,
    /// The lap that each frame's times are of.
    laps: Vec<u32>,
}

impl Packets {
    /// Records as the simulated fleet makes them, newest first in each packet.
    pub(super) fn new(settings: &Settings, place: u32) -> Self {
        let number = settings.first_device + place;
        let route = Route::new(test_imei(number), number, settings.start_ms);
        let (records, codec) = (settings.records, route.codec());
        let (mut bytes, mut ends, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let packets = u64::from(settings.packets.unwrap_or(RING));
        for packet in 0..packets {
            let begin = bytes.len();
            bytes.extend_from_slice(&[0; DATA]);
            bytes.extend_from_slice(&[codec.id(), records]);
            let first = packet * u64::from(records);
            for n in (first..first + u64::from(records)).rev() {
                times.push(u32::try_from(bytes.len()).unwrap());
                encode::record(codec, &route.record(n), &mut bytes).unwrap();
            }
            bytes.push(records);
            let length = u32::try_from(bytes.len() - begin - DATA).unwrap();
            bytes[begin + 4..begin + DATA].copy_from_slice(&length.to_be_bytes());
            let crc = crc16(&bytes[begin + DATA..]);
            bytes.extend_from_slice(&u32::from(crc).to_be_bytes());
            ends.push(u32::try_from(bytes.len()).unwrap());
        }
        let laps = vec![0; ends.len()];
        Self { imei: route.imei(), bytes, ends, times, records, laps }
    }

    pub(super) fn login(&self) -> Vec<u8> {
        encode::login(self.imei)
    }

    /// The range of a packet's frame in the buffer. Packets come in order, and the last one may come again.
    pub(super) fn frame(&mut self, packet: u64) -> Range<usize> {
        let place = (packet % self.ends.len() as u64) as usize;
        let lap = (packet / self.ends.len() as u64) as u32;
        let begin = place.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let end = self.ends[place] as usize;
        if self.laps[place] != lap {
            let ahead = u64::from(lap - self.laps[place]) * self.lap_ms();
            let records = usize::from(self.records);
            for at in &self.times[place * records..][..records] {
                let time = &mut self.bytes[*at as usize..][..8];
                let moved = u64::from_be_bytes((&*time).try_into().unwrap()) + ahead;
                time.copy_from_slice(&moved.to_be_bytes());
            }
            let crc = crc16(&self.bytes[begin + DATA..end - CRC]);
            self.bytes[end - CRC..end].copy_from_slice(&u32::from(crc).to_be_bytes());
            self.laps[place] = lap;
        }
        begin..end
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Mean length of a frame.
    pub(super) fn mean_len(&self) -> f64 {
        self.bytes.len() as f64 / self.ends.len() as f64
    }

    /// One record a second, so a lap takes as many seconds as there are records.
    fn lap_ms(&self) -> u64 {
        self.times.len() as u64 * 1000
    }
}

/// Packets of a tracker that goes on without end: few enough for the memory of 10,000 trackers.
const RING: u32 = 8;
/// Preamble and length come before the data field, the CRC after it.
const DATA: usize = 8;
const CRC: usize = 4;
