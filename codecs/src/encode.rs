//! The tracker's side: logins, whole AVL frames and datagrams, for simulators and tests.

use crate::codec::AvlCodec;
use crate::element::Value;
use crate::envelope::enclose;
use crate::imei::Imei;

/// A record to be sent. The fields are those of [`crate::Record`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Device time, milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: u64,
    /// 0 low, 1 high, 2 panic.
    pub priority: u8,
    /// Longitude in 10⁻⁷ degrees.
    pub longitude_raw: i32,
    /// Latitude in 10⁻⁷ degrees.
    pub latitude_raw: i32,
    /// Metres above sea level.
    pub altitude_m: i16,
    /// Degrees clockwise from north.
    pub angle_deg: u16,
    /// Satellites in use.
    pub satellites: u8,
    /// Ground speed, km/h.
    pub speed_kmh: u16,
    /// The element that caused the record.
    pub event_io_id: u16,
    /// Codec 16 only; other codecs do not send it.
    pub generation_type: u8,
    /// Elements; they are sent grouped by width, in this order inside a group.
    pub elements: Vec<NewElement>,
}

/// An element to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewElement {
    /// The element id.
    pub id: u16,
    /// The value; its variant decides the group.
    pub value: NewValue,
}

/// An owned [`Value`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewValue {
    /// One byte.
    U8(u8),
    /// Two bytes.
    U16(u16),
    /// Four bytes.
    U32(u32),
    /// Eight bytes.
    U64(u64),
    /// Variable length, Codec 8E only.
    Bytes(Vec<u8>),
}

impl NewValue {
    /// The borrowed form.
    #[must_use]
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::U8(value) => Value::U8(*value),
            Self::U16(value) => Value::U16(*value),
            Self::U32(value) => Value::U32(*value),
            Self::U64(value) => Value::U64(*value),
            Self::Bytes(value) => Value::Bytes(value),
        }
    }
}

/// What a codec cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A frame counts its records in one byte.
    #[error("a frame holds at most 255 records")]
    TooManyRecords,
    /// Codec 8 has one-byte ids (section 2.2).
    #[error("element id {0} needs Codec 8E or 16")]
    WideId(u16),
    /// Only Codec 8E has a group of variable length.
    #[error("element {0} of variable length needs Codec 8E")]
    VariableLength(u16),
    /// More elements, or a longer value, than the codec's count can say.
    #[error("too many elements, or a value too long, for the codec")]
    TooManyElements,
    /// A datagram names its length in two bytes.
    #[error("a datagram holds at most 65,535 bytes")]
    TooLong,
}

/// A login (section 1.1).
#[must_use]
pub fn login(imei: Imei) -> Vec<u8> {
    let mut bytes = vec![0x00, 0x0F];
    bytes.extend_from_slice(&imei.to_ascii());
    bytes
}

/// A whole TCP frame (section 1.3).
///
/// # Errors
/// [`EncodeError`] for what the codec cannot carry.
pub fn frame(codec: AvlCodec, records: &[NewRecord]) -> Result<Vec<u8>, EncodeError> {
    Ok(enclose(&data(codec, records)?))
}

/// A whole datagram (section 3).
///
/// # Errors
/// [`EncodeError`] for what the codec cannot carry.
pub fn datagram(
    packet_id: u16,
    avl_packet_id: u8,
    imei: Imei,
    codec: AvlCodec,
    records: &[NewRecord],
) -> Result<Vec<u8>, EncodeError> {
    let data = data(codec, records)?;
    let mut packet = Vec::with_capacity(data.len() + 23);
    packet.extend_from_slice(&packet_id.to_be_bytes());
    packet.extend_from_slice(&[0x01, avl_packet_id]);
    packet.extend_from_slice(&login(imei));
    packet.extend_from_slice(&data);
    let length = u16::try_from(packet.len()).map_err(|_| EncodeError::TooLong)?;
    Ok([&length.to_be_bytes(), &packet[..]].concat())
}

/// One record's bytes, timestamp to last element.
///
/// # Errors
/// [`EncodeError`] for what the codec cannot carry.
pub fn record(codec: AvlCodec, record: &NewRecord, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let NewRecord {
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
        elements,
    } = record;
    out.extend_from_slice(&timestamp_ms.to_be_bytes());
    out.push(*priority);
    out.extend_from_slice(&longitude_raw.to_be_bytes());
    out.extend_from_slice(&latitude_raw.to_be_bytes());
    out.extend_from_slice(&altitude_m.to_be_bytes());
    out.extend_from_slice(&angle_deg.to_be_bytes());
    out.push(*satellites);
    out.extend_from_slice(&speed_kmh.to_be_bytes());
    put_id(codec, *event_io_id, out)?;
    if codec == AvlCodec::Codec16 {
        out.push(*generation_type);
    }
    put_count(codec, elements.len(), out)?;
    for width in [1, 2, 4, 8] {
        let in_group = |e: &&NewElement| {
            let value = e.value.as_value();
            value.unsigned().is_some() && value.width() == width
        };
        put_count(codec, elements.iter().filter(in_group).count(), out)?;
        for element in elements.iter().filter(in_group) {
            put_id(codec, element.id, out)?;
            match element.value.as_value() {
                Value::U8(value) => out.push(value),
                Value::U16(value) => out.extend_from_slice(&value.to_be_bytes()),
                Value::U32(value) => out.extend_from_slice(&value.to_be_bytes()),
                Value::U64(value) => out.extend_from_slice(&value.to_be_bytes()),
                Value::Bytes(_) => {}
            }
        }
    }
    let variable = elements.iter().filter_map(|e| match &e.value {
        NewValue::Bytes(bytes) => Some((e.id, bytes)),
        _ => None,
    });
    if codec == AvlCodec::Codec8E {
        put_count(codec, variable.clone().count(), out)?;
        for (id, bytes) in variable {
            put_id(codec, id, out)?;
            let length = u16::try_from(bytes.len()).map_err(|_| EncodeError::TooManyElements)?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(bytes);
        }
    } else if let Some((id, _)) = variable.clone().next() {
        return Err(EncodeError::VariableLength(id));
    }
    Ok(())
}

fn data(codec: AvlCodec, records: &[NewRecord]) -> Result<Vec<u8>, EncodeError> {
    let count = u8::try_from(records.len()).map_err(|_| EncodeError::TooManyRecords)?;
    let mut data = vec![codec.id(), count];
    for new in records {
        record(codec, new, &mut data)?;
    }
    data.push(count);
    Ok(data)
}

fn put_id(codec: AvlCodec, id: u16, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match codec {
        AvlCodec::Codec8 => out.push(u8::try_from(id).map_err(|_| EncodeError::WideId(id))?),
        AvlCodec::Codec8E | AvlCodec::Codec16 => out.extend_from_slice(&id.to_be_bytes()),
    }
    Ok(())
}

fn put_count(codec: AvlCodec, count: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match codec {
        AvlCodec::Codec8 | AvlCodec::Codec16 => {
            out.push(u8::try_from(count).map_err(|_| EncodeError::TooManyElements)?);
        }
        AvlCodec::Codec8E => {
            out.extend_from_slice(&u16::try_from(count).map_err(|_| EncodeError::TooManyElements)?.to_be_bytes());
        }
    }
    Ok(())
}
