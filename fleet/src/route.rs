//! The drive of one simulated tracker. Record n always has the same values, so the audit can make it again.

use teltonika_codecs::encode::{NewElement, NewRecord, NewValue};
use teltonika_codecs::{AvlCodec, Imei};

use crate::clocks::Clocks;
use crate::course::Course;
use crate::elements::{ElementValues, specs};
use crate::noise::noise;

/// A tracker's drive.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    imei: Imei,
    number: u32,
    start_ms: u64,
}

/// What differs from record to record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) timestamp_ms: u64,
    pub(super) priority: u8,
    pub(super) longitude_raw: i32,
    pub(super) latitude_raw: i32,
    pub(super) altitude_m: i16,
    pub(super) angle_deg: u16,
    pub(super) satellites: u8,
    pub(super) speed_kmh: u16,
    pub(super) event_io_id: u8,
    /// Whether the record has the occasional elements.
    pub(super) full: bool,
    pub(super) values: ElementValues,
}

impl Route {
    /// The drive of tracker `number`. Its first record has the device time `start_ms`.
    #[must_use]
    pub fn new(imei: Imei, number: u32, start_ms: u64) -> Self {
        Self { imei, number, start_ms }
    }

    /// The same drive, with a clock that can be wrong.
    #[must_use]
    pub fn with_clocks(self, clocks: Clocks) -> Self {
        Self { start_ms: self.start_ms.saturating_add_signed(clocks.offset_ms(self.number, self.start_ms)), ..self }
    }

    /// The tracker.
    #[must_use]
    pub fn imei(&self) -> Imei {
        self.imei
    }

    /// Every second tracker is an FMB003, set to Codec 8 Extended; the others are FMB920 with Codec 8.
    #[must_use]
    pub fn codec(&self) -> AvlCodec {
        if self.number.is_multiple_of(2) { AvlCodec::Codec8 } else { AvlCodec::Codec8E }
    }

    /// Device time of record n, never before that of record n - 1. There is one record a second, not punctual to the
    /// millisecond; occasionally two records share a millisecond.
    #[must_use]
    pub fn timestamp_ms(&self, n: u64) -> u64 {
        let n = self.original(n);
        self.start_ms + n * 1000 + noise(self.number, n) % 400
    }

    /// Record n.
    #[must_use]
    pub fn record(&self, n: u64) -> NewRecord {
        let sample = self.sample(n);
        let elements = specs(self.codec(), sample.full).iter().zip(sample.values).map(|(spec, value)| {
            let low = |bits: u32| value & (u64::MAX >> (64 - bits));
            let value = match spec.width {
                1 => NewValue::U8(u8::try_from(low(8)).unwrap_or(0)),
                2 => NewValue::U16(u16::try_from(low(16)).unwrap_or(0)),
                4 => NewValue::U32(u32::try_from(low(32)).unwrap_or(0)),
                _ => NewValue::U64(value),
            };
            NewElement { id: spec.id, value }
        });
        let vin = self.has_vin(&sample).then(|| NewElement { id: VIN, value: NewValue::Bytes(self.vin().to_vec()) });
        NewRecord {
            timestamp_ms: sample.timestamp_ms,
            priority: sample.priority,
            longitude_raw: sample.longitude_raw,
            latitude_raw: sample.latitude_raw,
            altitude_m: sample.altitude_m,
            angle_deg: sample.angle_deg,
            satellites: sample.satellites,
            speed_kmh: sample.speed_kmh,
            event_io_id: sample.event_io_id.into(),
            generation_type: 0,
            elements: elements.chain(vin).collect(),
        }
    }

    /// What differs in record n.
    pub(super) fn sample(&self, n: u64) -> Sample {
        let original = self.original(n);
        let noise = noise(self.number, original);
        let (course, second) = (Course::of(self.number), u64::from(self.number) * 37 + original);
        let phase = (original + u64::from(self.number) * 101) % NO_FIX_EVERY;
        // A tracker that was just switched on has no position yet; one under a bridge repeats its last one (section 2.4).
        let cold = self.number % 5 == 3 && original < COLD_START;
        let fix = phase >= NO_FIX_FOR && !cold;
        let (point, _) = course.at(if fix { second } else { second.saturating_sub(phase + 1) });
        let (now, driven_m) = course.at(second);
        let small = |shift: u32, modulus: u64| (noise >> shift) % modulus;
        // Some metres of scatter, like a real receiver.
        let scatter = |shift: u32| i32::try_from(small(shift, 300)).unwrap_or(0) - 150;
        let scatter = if fix { (scatter(20), scatter(32)) } else { (0, 0) };
        let speed_kmh = if fix { point.speed_kmh } else { 0 };
        let event = original % 50 == 7;
        // The second record of a millisecond differs only in its cause.
        let event_io_id = if n == original { u8::from(event) * IGNITION } else { MOVEMENT };
        Sample {
            timestamp_ms: self.start_ms + original * 1000 + noise % 400,
            priority: u8::from(event || n != original),
            longitude_raw: if cold { 0 } else { point.longitude_raw + scatter.0 },
            latitude_raw: if cold { 0 } else { point.latitude_raw + scatter.1 },
            altitude_m: if cold { 0 } else { point.altitude_m },
            angle_deg: if fix { point.angle_deg } else { 0 },
            satellites: if fix { u8::try_from(6 + small(4, 10)).unwrap_or(6) } else { 0 },
            speed_kmh,
            event_io_id,
            full: n.is_multiple_of(25),
            values: [
                1,
                u64::from(now.speed_kmh > 0),
                1,
                1 + small(40, 5),
                0,
                if fix { 1 } else { 2 },
                10 + small(3, 30),
                7 + small(5, 20),
                12_000 + small(7, 2_400),
                u64::from(speed_kmh),
                small(9, 60_000),
                3_900 + small(11, 300),
                // Milli-g in two's complement.
                small(13, 400).wrapping_sub(200) & 0xFFFF,
                24_601,
                10_000_000 + u64::from(self.number % 1000) * 50_000 + driven_m,
                small(17, 90),
                800 + small(19, 3_000),
                small(23, 100),
                0x007B_0000_0000 | u64::from(self.number),
            ],
        }
    }

    /// Whether a record names the vehicle: only Codec 8 Extended has values of variable length.
    pub(super) fn has_vin(&self, sample: &Sample) -> bool {
        sample.full && self.codec() == AvlCodec::Codec8E
    }

    /// A vehicle identification of 17 characters.
    pub(super) fn vin(&self) -> [u8; 17] {
        let mut vin = *b"ODO00000000000000";
        vin[3..].copy_from_slice(&self.imei.to_ascii()[1..]);
        vin
    }

    /// The record that record n repeats in the same millisecond; usually n itself.
    fn original(&self, n: u64) -> u64 {
        let second = (n + u64::from(self.number)) % TWIN_EVERY == TWIN_EVERY - 1 && n > 0;
        n - u64::from(second)
    }
}

pub(super) const VIN: u16 = 256;
const IGNITION: u8 = 239;
const MOVEMENT: u8 = 240;
/// Records from one loss of the fix to the next, and how many it lasts.
const NO_FIX_EVERY: u64 = 389;
const NO_FIX_FOR: u64 = 9;
/// Records before the first fix.
const COLD_START: u64 = 4;
const TWIN_EVERY: u64 = 211;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use teltonika_codecs::encode;

    use super::*;
    use crate::imei::test_imei;

    fn route(number: u32) -> Route {
        Route::new(test_imei(number), number, 1_780_056_000_000)
    }

    #[test]
    fn device_time_never_goes_back_and_no_two_records_are_the_same() {
        let mut same_millisecond = 0;
        for number in 0..40 {
            let (route, mut seen) = (route(number), HashSet::new());
            for n in 0..1_000 {
                let record = route.record(n);
                assert_eq!(record.timestamp_ms, route.timestamp_ms(n));
                let mut wire = Vec::new();
                encode::record(route.codec(), &record, &mut wire).unwrap();
                assert!(seen.insert((record.timestamp_ms, crc32fast::hash(&wire))), "tracker {number}, record {n}");
                if n > 0 {
                    assert!(record.timestamp_ms >= route.timestamp_ms(n - 1));
                    same_millisecond += u32::from(record.timestamp_ms == route.timestamp_ms(n - 1));
                }
            }
        }
        assert!((100..300).contains(&same_millisecond), "{same_millisecond}");
    }

    #[test]
    fn without_a_fix_the_last_place_stays_and_satellites_angle_and_speed_are_0() {
        let route = route(4);
        let records: Vec<_> = (0..1_000).map(|n| route.record(n)).collect();
        let lost: Vec<_> = records.windows(2).filter(|pair| pair[1].satellites == 0).collect();
        assert!(lost.len() >= 18);
        for pair in lost {
            let [before, without] = pair else { unreachable!() };
            assert_eq!((without.angle_deg, without.speed_kmh), (0, 0));
            let metres = (without.longitude_raw - before.longitude_raw).abs();
            assert!(metres <= 150, "the last place, but for the scatter: {metres}");
        }
    }

    #[test]
    fn a_tracker_that_was_just_switched_on_has_no_position_yet() {
        let first = route(3).record(0);
        assert_eq!((first.longitude_raw, first.latitude_raw, first.satellites), (0, 0, 0));
        assert!(route(3).record(COLD_START + NO_FIX_FOR).longitude_raw > 0);
    }
}
