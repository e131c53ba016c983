//! The drive of one simulated tracker: a loop around a town at a plausible speed, with the elements that the two models
//! send. Record number n is the same whenever it is asked for.

use teltonika_codecs::encode::{NewElement, NewRecord, NewValue};
use teltonika_codecs::{AvlCodec, Imei};

/// A tracker's drive.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    imei: Imei,
    number: u32,
    start_ms: u64,
}

impl Route {
    /// The drive of tracker `number`, whose first record is of `start_ms`.
    #[must_use]
    pub fn new(imei: Imei, number: u32, start_ms: u64) -> Self {
        Self { imei, number, start_ms }
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

    /// Device time of record n: one a second, and trackers are not punctual to the millisecond.
    #[must_use]
    pub fn timestamp_ms(&self, n: u64) -> u64 {
        self.start_ms + n * 1000 + noise(self.number, n) % 400
    }

    /// Record n.
    #[must_use]
    pub fn record(&self, n: u64) -> NewRecord {
        let noise = noise(self.number, n);
        let small = |shift: u32, modulus: u64| u16::try_from((noise >> shift) % modulus).unwrap_or(0);
        // Without a fix a tracker repeats its last place with satellites, angle and speed at 0 (section 2.4).
        let fix = n % 97 != 42;
        let angle = angle_deg(self.number, n);
        let speed_kmh = if fix { 40 + small(8, 60) } else { 0 };
        let (longitude_raw, latitude_raw) = self.place(n);
        NewRecord {
            timestamp_ms: self.timestamp_ms(n),
            priority: u8::from(n % 50 == 7),
            longitude_raw,
            latitude_raw,
            altitude_m: i16::try_from(noise % 140).unwrap_or(0) - 20,
            angle_deg: if fix { angle } else { 0 },
            satellites: if fix { u8::try_from(6 + noise % 10).unwrap_or(6) } else { 0 },
            speed_kmh,
            event_io_id: if n % 50 == 7 { 239 } else { 0 },
            generation_type: 0,
            elements: self.elements(n, noise, fix, speed_kmh),
        }
    }

    fn elements(&self, n: u64, noise: u64, fix: bool, speed_kmh: u16) -> Vec<NewElement> {
        let small = |shift: u32, modulus: u64| u16::try_from((noise >> shift) % modulus).unwrap_or(0);
        let metres = u32::try_from(n.saturating_mul(20) % 1_000_000_000).unwrap_or(0);
        let mut elements = vec![
            element(239, NewValue::U8(1)),
            element(240, NewValue::U8(u8::from(fix))),
            element(80, NewValue::U8(1)),
            element(21, NewValue::U8(u8::try_from(1 + noise % 5).unwrap_or(1))),
            element(200, NewValue::U8(0)),
            element(69, NewValue::U8(if fix { 1 } else { 2 })),
            element(181, NewValue::U16(10 + small(3, 30))),
            element(182, NewValue::U16(7 + small(5, 20))),
            element(66, NewValue::U16(12_000 + small(7, 2_400))),
            element(24, NewValue::U16(speed_kmh)),
            element(205, NewValue::U16(small(9, 60_000))),
            element(67, NewValue::U16(3_900 + small(11, 300))),
            element(17, NewValue::U16((i16::try_from(noise % 400).unwrap_or(0) - 200).cast_unsigned())),
            element(241, NewValue::U32(24_601)),
            element(16, NewValue::U32(10_000_000 + metres)),
        ];
        if n.is_multiple_of(25) {
            // An iButton comes without a column of its own, the VIN only where the codec has variable lengths.
            elements.push(element(78, NewValue::U64(0x0100_0000_0000_0000 | noise >> 8)));
            if self.codec() == AvlCodec::Codec8E {
                let vin = format!("ODO{:014}", self.imei.get() % 100_000_000_000_000);
                elements.push(element(256, NewValue::Bytes(vin.into_bytes())));
            }
        }
        elements
    }

    /// A circle of some kilometres around a point of the tracker's own, in wire units.
    fn place(&self, n: u64) -> (i32, i32) {
        let phase = f64::from(u32::try_from(n % LAP).unwrap_or(0)) / LAP_F * std::f64::consts::TAU;
        let centre = (f64::from(self.number % 300) * 0.05 + 5.0, f64::from(self.number / 300 % 300) * 0.05 + 42.0);
        #[expect(clippy::cast_possible_truncation, reason = "below 180 degrees in wire units is below 2^31")]
        let wire = |degrees: f64| (degrees * 1e7).round() as i32;
        (wire(centre.0 + 0.03 * phase.cos()), wire(centre.1 + 0.02 * phase.sin()))
    }
}

fn element(id: u16, value: NewValue) -> NewElement {
    NewElement { id, value }
}

fn angle_deg(number: u32, n: u64) -> u16 {
    u16::try_from((n * 360 / LAP + u64::from(number) * 7) % 360).unwrap_or(0)
}

/// Mixes two numbers into one that looks random (the finisher of splitmix64).
fn noise(number: u32, n: u64) -> u64 {
    let mut mixed = (u64::from(number) << 32 ^ n).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// Records in a lap.
const LAP: u64 = 900;
const LAP_F: f64 = 900.0;
