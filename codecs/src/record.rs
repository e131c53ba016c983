//! One AVL record: the fixed part as values, the elements as a borrowed iterator (sections 2.1 and 2.2).

use crate::codec::AvlCodec;
use crate::element::Elements;
use crate::layout::{Codec8ELayout, Codec8Layout, Codec16Layout, Layout, Shortfall, number, skip_groups};

/// A record as the tracker sent it. Values are the wire's; degrees and dates are views.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Device time, milliseconds since 1970-01-01 UTC. Any 64-bit value can arrive; few calendars hold them all.
    pub timestamp_ms: u64,
    /// 0 low, 1 high, 2 panic; others are kept as they are.
    pub priority: u8,
    /// Longitude in 10⁻⁷ degrees, as sent: values beyond ±180° are possible.
    pub longitude_raw: i32,
    /// Latitude in 10⁻⁷ degrees, as sent: values beyond ±90° are possible.
    pub latitude_raw: i32,
    /// Metres above sea level, signed.
    pub altitude_m: i16,
    /// Degrees clockwise from north.
    pub angle_deg: u16,
    /// Satellites in use; 0 means no fix (section 2.4).
    pub satellites: u8,
    /// Ground speed, km/h.
    pub speed_kmh: u16,
    /// The element that caused the record; 0 for a periodic one.
    pub event_io_id: u16,
    /// Codec 16 only: why the record was made, as a number.
    pub generation_type: Option<u8>,
    /// The number of elements that the record announces. The groups' own counts govern; a difference is worth a report.
    pub announced_elements: u16,
    wire: &'a [u8],
    groups: &'a [u8],
    codec: AvlCodec,
}

impl<'a> Record<'a> {
    /// Last millisecond that calendars with four-digit years hold: 9999-12-31T23:59:59.999Z.
    pub const LAST_CALENDAR_MS: u64 = 253_402_300_799_999;

    /// The device time where a calendar holds it, else `None`. Times far outside are possible on the wire (section 2.5).
    #[must_use]
    pub fn calendar_ms(&self) -> Option<i64> {
        i64::try_from(self.timestamp_ms).ok().filter(|_| self.timestamp_ms <= Self::LAST_CALENDAR_MS)
    }

    /// Longitude in degrees, positive to the east.
    #[must_use]
    pub fn longitude(&self) -> f64 {
        f64::from(self.longitude_raw) / DEGREE
    }

    /// Latitude in degrees, positive to the north.
    #[must_use]
    pub fn latitude(&self) -> f64 {
        f64::from(self.latitude_raw) / DEGREE
    }

    /// Whether the record carries a position (section 2.4): a fix with satellites, in range and not the 0/0 of a device
    /// that has had none since its start. Without satellites a tracker repeats its last place.
    #[must_use]
    pub fn has_position(&self) -> bool {
        self.satellites > 0
            && (self.longitude_raw, self.latitude_raw) != (0, 0)
            && self.longitude_raw.unsigned_abs() <= MAX_LONGITUDE
            && self.latitude_raw.unsigned_abs() <= MAX_LATITUDE
    }

    /// The I/O elements in wire order. Width groups follow one another; an id can come twice.
    #[must_use]
    #[inline]
    pub fn elements(&self) -> Elements<'a> {
        Elements::new(self.codec, self.groups)
    }

    /// The bytes of this record on the wire, timestamp to last element: what a fingerprint is taken over.
    #[must_use]
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }
}

/// Walks one record without reading it; gives the bytes behind it.
#[inline]
pub(crate) fn skip<L: Layout>(bytes: &[u8]) -> Result<&[u8], Shortfall> {
    match bytes.get(const { groups_at::<L>() }..) {
        Some(groups) => skip_groups::<L>(groups),
        None if bytes.len() < FIXED_LEN => Err(Shortfall { left: bytes.len(), what: "fixed part of a record" }),
        None => Err(Shortfall { left: bytes.len(), what: "event id and total of elements" }),
    }
}

/// Walks one record of a codec; gives its length.
#[inline]
pub(crate) fn length(codec: AvlCodec, bytes: &[u8]) -> Option<usize> {
    let rest = match codec {
        AvlCodec::Codec8 => skip::<Codec8Layout>(bytes),
        AvlCodec::Codec8E => skip::<Codec8ELayout>(bytes),
        AvlCodec::Codec16 => skip::<Codec16Layout>(bytes),
    };
    Some(bytes.len() - rest.ok()?.len())
}

/// Reads a record from its bytes, which were walked before.
#[inline]
pub(crate) fn read(codec: AvlCodec, wire: &[u8]) -> Option<Record<'_>> {
    match codec {
        AvlCodec::Codec8 => read_with::<Codec8Layout>(codec, wire),
        AvlCodec::Codec8E => read_with::<Codec8ELayout>(codec, wire),
        AvlCodec::Codec16 => read_with::<Codec16Layout>(codec, wire),
    }
}

#[inline]
fn read_with<L: Layout>(codec: AvlCodec, wire: &[u8]) -> Option<Record<'_>> {
    let (fixed, io) = wire.split_first_chunk::<FIXED_LEN>()?;
    let [t0, t1, t2, t3, t4, t5, t6, t7, priority, x0, x1, x2, x3, y0, y1, y2, y3, a0, a1, d0, d1, satellites, s0, s1] =
        *fixed;
    let (event, io) = number(io, L::ID)?;
    let (generation_type, io) =
        if L::GENERATION_TYPE { io.split_first().map(|(kind, io)| (Some(*kind), io))? } else { (None, io) };
    let (total, groups) = number(io, L::COUNT)?;
    let narrow = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    Some(Record {
        timestamp_ms: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        priority,
        longitude_raw: i32::from_be_bytes([x0, x1, x2, x3]),
        latitude_raw: i32::from_be_bytes([y0, y1, y2, y3]),
        altitude_m: i16::from_be_bytes([a0, a1]),
        angle_deg: u16::from_be_bytes([d0, d1]),
        satellites,
        speed_kmh: u16::from_be_bytes([s0, s1]),
        event_io_id: narrow(event),
        generation_type,
        announced_elements: narrow(total),
        wire,
        groups,
        codec,
    })
}

/// Offset of the first group's count: behind the fixed part, event id, generation type and total.
const fn groups_at<L: Layout>() -> usize {
    FIXED_LEN + L::ID + L::GENERATION_TYPE as usize + L::COUNT
}

/// Timestamp to speed, the same in all codecs (section 2.1).
const FIXED_LEN: usize = 24;
/// Wire units in a degree (section 2.1).
const DEGREE: f64 = 10_000_000.0;
const MAX_LONGITUDE: u32 = 1_800_000_000;
const MAX_LATITUDE: u32 = 900_000_000;
