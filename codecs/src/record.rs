//! One AVL record: the fixed part as values, the elements as a borrowed iterator (sections 2.1 and 2.2).

use nom::Parser as _;
use nom::error::context;
use nom::number::complete::{be_i16, be_i32, be_u8, be_u16, be_u64};

use crate::avl::AvlCodec;
use crate::element::{Elements, groups};
use crate::parse::Parsed;

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
    pub fn elements(&self) -> Elements<'a> {
        Elements::new(self.codec, self.groups)
    }

    /// The bytes of this record on the wire, timestamp to last element: what a fingerprint is taken over.
    #[must_use]
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }
}

/// Wire units in a degree (section 2.1).
const DEGREE: f64 = 10_000_000.0;
const MAX_LONGITUDE: u32 = 1_800_000_000;
const MAX_LATITUDE: u32 = 900_000_000;

/// Reads one record and walks its elements.
pub(crate) fn record(codec: AvlCodec, input: &[u8]) -> Parsed<'_, Record<'_>> {
    let (rest, (timestamp_ms, priority, longitude_raw, latitude_raw)) =
        context("fixed part of a record", (be_u64, be_u8, be_i32, be_i32)).parse(input)?;
    let (rest, (altitude_m, angle_deg, satellites, speed_kmh)) =
        context("fixed part of a record", (be_i16, be_u16, be_u8, be_u16)).parse(rest)?;
    let (rest, event_io_id) = context("event id", |i| codec.read_id(i)).parse(rest)?;
    let (rest, generation_type) = context("generation type", |i| codec.generation_type(i)).parse(rest)?;
    let (at_groups, announced_elements) = context("total of elements", |i| codec.read_count(i)).parse(rest)?;
    let (rest, _) = groups(codec, at_groups)?;
    let before = |part: &'_ [u8]| part.len() - rest.len();
    Ok((
        rest,
        Record {
            timestamp_ms,
            priority,
            longitude_raw,
            latitude_raw,
            altitude_m,
            angle_deg,
            satellites,
            speed_kmh,
            event_io_id,
            generation_type,
            announced_elements,
            wire: input.get(..before(input)).unwrap_or_default(),
            groups: at_groups.get(..before(at_groups)).unwrap_or_default(),
            codec,
        },
    ))
}
