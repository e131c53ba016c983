//! I/O elements: ids and raw values. Widths come from the wire; signs and units are views (section 2.2).

use nom::bytes::complete::take;
use nom::error::context;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16};
use nom::{Parser as _, error::ParseError as _};

use crate::avl::AvlCodec;
use crate::parse::{Parsed, Stop};

/// The raw value of an element: an unsigned integer of the width on the wire, or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// From the one-byte group.
    U8(u8),
    /// From the two-byte group.
    U16(u16),
    /// From the four-byte group.
    U32(u32),
    /// From the eight-byte group.
    U64(u64),
    /// From the group of variable length (Codec 8E only); may be empty.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// The unsigned integer on the wire, whatever its width; `None` for a value of variable length.
    #[must_use]
    pub fn unsigned(self) -> Option<u64> {
        match self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::Bytes(_) => None,
        }
    }

    /// The same bits read as two's complement of the wire's width; `None` for a value of variable length.
    #[must_use]
    pub fn signed(self) -> Option<i64> {
        match self {
            Self::U8(value) => Some(value.cast_signed().into()),
            Self::U16(value) => Some(value.cast_signed().into()),
            Self::U32(value) => Some(value.cast_signed().into()),
            Self::U64(value) => Some(value.cast_signed()),
            Self::Bytes(_) => None,
        }
    }

    /// Bytes of the value on the wire.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::U8(_) => 1,
            Self::U16(_) => 2,
            Self::U32(_) => 4,
            Self::U64(_) => 8,
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// One I/O element of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The element id; its meaning is the device model's.
    pub id: u16,
    /// The raw value.
    pub value: Value<'a>,
}

/// The groups in wire order, by width; the last is the group of variable length.
const FIXED_WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// Iterates the elements of a record, in wire order, without allocation.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    codec: AvlCodec,
    rest: &'a [u8],
    group: usize,
    left: u16,
}

impl<'a> Elements<'a> {
    /// `groups` were walked by [`groups`] before: from the first group's count to the end of the record.
    pub(crate) fn new(codec: AvlCodec, groups: &'a [u8]) -> Self {
        // `group` counts the group counts that were read, so 0 is "before the first group".
        Self { codec, rest: groups, group: 0, left: 0 }
    }

    fn read(&mut self) -> Option<Element<'a>> {
        while self.left == 0 {
            let (rest, count) = self.codec.read_count(self.rest).ok()?;
            (self.rest, self.left) = (rest, count);
            self.group += 1;
        }
        let (rest, id) = self.codec.read_id(self.rest).ok()?;
        let (rest, value) = match self.group {
            1 => rest.split_first_chunk().map(|(v, rest)| (rest, Value::U8(u8::from_be_bytes(*v))))?,
            2 => rest.split_first_chunk().map(|(v, rest)| (rest, Value::U16(u16::from_be_bytes(*v))))?,
            3 => rest.split_first_chunk().map(|(v, rest)| (rest, Value::U32(u32::from_be_bytes(*v))))?,
            4 => rest.split_first_chunk().map(|(v, rest)| (rest, Value::U64(u64::from_be_bytes(*v))))?,
            _ => length_data(be_u16::<_, Stop<'_>>).parse(rest).ok().map(|(rest, v)| (rest, Value::Bytes(v)))?,
        };
        (self.rest, self.left) = (rest, self.left - 1);
        Some(Element { id, value })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        // The groups were walked when the frame was opened, so the only end is the end of the bytes.
        self.read()
    }
}

/// Walks all groups of one record; gives the number of elements they announce.
pub(crate) fn groups(codec: AvlCodec, input: &[u8]) -> Parsed<'_, u32> {
    let mut rest = input;
    let mut elements = 0_u32;
    for width in FIXED_WIDTHS {
        let (behind, count) = context("count of an element group", |i| codec.read_count(i)).parse(rest)?;
        let bytes = usize::from(count) * (codec.id_len() + width);
        rest = context("elements of fixed width", take(bytes)).parse(behind)?.0;
        elements += u32::from(count);
    }
    if codec.has_variable_group() {
        let (behind, count) = context("count of an element group", |i| codec.read_count(i)).parse(rest)?;
        rest = behind;
        for _ in 0..count {
            rest = context("id of an element", |i| codec.read_id(i)).parse(rest)?.0;
            rest = context("element of variable length", length_data(be_u16)).parse(rest)?.0;
        }
        elements += u32::from(count);
    }
    Ok((rest, elements))
}

impl AvlCodec {
    const fn id_len(self) -> usize {
        match self {
            Self::Codec8 => 1,
            Self::Codec8E | Self::Codec16 => 2,
        }
    }

    const fn has_variable_group(self) -> bool {
        matches!(self, Self::Codec8E)
    }

    /// Reads a total or a group's count: one byte, two in Codec 8E (section 2.2).
    pub(crate) fn read_count(self, input: &[u8]) -> Parsed<'_, u16> {
        match self {
            Self::Codec8 | Self::Codec16 => be_u8.map(u16::from).parse(input),
            Self::Codec8E => be_u16(input),
        }
    }

    /// Reads an element id: one byte in Codec 8, else two (section 2.2).
    pub(crate) fn read_id(self, input: &[u8]) -> Parsed<'_, u16> {
        match self {
            Self::Codec8 => be_u8.map(u16::from).parse(input),
            Self::Codec8E | Self::Codec16 => be_u16(input),
        }
    }

    /// Reads the generation type, which only Codec 16 has (section 2.2).
    pub(crate) fn generation_type(self, input: &[u8]) -> Parsed<'_, Option<u8>> {
        match self {
            Self::Codec8 | Self::Codec8E => Ok((input, None)),
            Self::Codec16 => match input.split_first() {
                Some((value, rest)) => Ok((rest, Some(*value))),
                None => Err(nom::Err::Error(Stop::from_error_kind(input, nom::error::ErrorKind::Eof))),
            },
        }
    }
}
