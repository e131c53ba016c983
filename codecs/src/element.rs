//! I/O elements: ids and raw values. Widths come from the wire; signs and units are views (section 2.2).

use crate::codec::AvlCodec;
use crate::layout::{Codec8ELayout, Codec8Layout, Codec16Layout, Layout, number};

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

/// Iterates the elements of a record, in wire order, without allocation.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    left: usize,
    group: Group,
    codec: AvlCodec,
}

/// Where the iterator stands: widths of id and value, so that each element is one read of known length.
#[derive(Clone, Copy, Debug)]
enum Group {
    Start,
    Narrow1,
    Narrow2,
    Narrow4,
    Narrow8,
    Wide1,
    Wide2,
    Wide4,
    Wide8,
    Variable,
}

impl<'a> Elements<'a> {
    /// `groups` were walked before: from the first group's count to the end of the record.
    #[inline]
    pub(crate) fn new(codec: AvlCodec, groups: &'a [u8]) -> Self {
        Self { rest: groups, left: 0, group: Group::Start, codec }
    }

    /// The elements whose id does not come again: of an id that comes twice, the last one. No tracker is known to send an id
    /// twice.
    pub fn distinct(self) -> impl Iterator<Item = Element<'a>> {
        let repeats = self.has_repeats();
        let later = self.clone();
        self.enumerate()
            .filter(move |(at, element)| !repeats || !later.clone().skip(at + 1).any(|later| later.id == element.id))
            .map(|(_, element)| element)
    }

    /// Whether an id comes twice.
    fn has_repeats(&self) -> bool {
        // Field records have some 20 elements: sort them without an allocation.
        let (mut few, mut many, mut count) = ([0; 64], Vec::new(), 0);
        self.clone().for_each(|element| {
            match few.get_mut(count) {
                Some(id) => *id = element.id,
                None => many.push(element.id),
            }
            count += 1;
        });
        let ids = if many.is_empty() {
            few.get_mut(..count).unwrap_or_default()
        } else {
            many.extend_from_slice(&few);
            &mut many
        };
        ids.sort_unstable();
        ids.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// Goes to the next group that has elements; `None` at the end of the record.
    #[inline]
    fn enter_group(&mut self) -> Option<()> {
        let (narrow, width) = match self.codec {
            AvlCodec::Codec8 => (true, Codec8Layout::COUNT),
            AvlCodec::Codec8E => (false, Codec8ELayout::COUNT),
            AvlCodec::Codec16 => (false, Codec16Layout::COUNT),
        };
        while self.left == 0 {
            (self.left, self.rest) = number(self.rest, width)?;
            self.group = match (self.group, narrow) {
                (Group::Start, true) => Group::Narrow1,
                (Group::Narrow1, _) => Group::Narrow2,
                (Group::Narrow2, _) => Group::Narrow4,
                (Group::Narrow4, _) => Group::Narrow8,
                (Group::Start, _) => Group::Wide1,
                (Group::Wide1, _) => Group::Wide2,
                (Group::Wide2, _) => Group::Wide4,
                (Group::Wide4, _) => Group::Wide8,
                (Group::Narrow8 | Group::Wide8 | Group::Variable, _) => Group::Variable,
            };
        }
        Some(())
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    /// Folds what is left of a group whose elements have N bytes: a loop without a decision in it.
    #[inline]
    fn fold_fixed<const N: usize, B>(&mut self, mut folded: B, mut step: impl FnMut(B, [u8; N]) -> B) -> B {
        let (group, rest) = self.rest.split_at_checked(self.left * N).unwrap_or((self.rest, &[]));
        (self.rest, self.left) = (rest, 0);
        for element in group.as_chunks().0 {
            folded = step(folded, *element);
        }
        folded
    }

    #[inline]
    fn take_variable(&mut self) -> Option<Element<'a>> {
        let [a, b, length @ ..] = self.take::<4>()?;
        let (value, rest) = self.rest.split_at_checked(u16::from_be_bytes(length).into())?;
        self.rest = rest;
        Some(Element { id: u16::from_be_bytes([a, b]), value: Value::Bytes(value) })
    }
}

// One element of each group, from its bytes.

#[inline]
fn narrow1([id, value]: [u8; 2]) -> Element<'static> {
    Element { id: id.into(), value: Value::U8(value) }
}

#[inline]
fn narrow2([id, value @ ..]: [u8; 3]) -> Element<'static> {
    Element { id: id.into(), value: Value::U16(u16::from_be_bytes(value)) }
}

#[inline]
fn narrow4([id, value @ ..]: [u8; 5]) -> Element<'static> {
    Element { id: id.into(), value: Value::U32(u32::from_be_bytes(value)) }
}

#[inline]
fn narrow8([id, value @ ..]: [u8; 9]) -> Element<'static> {
    Element { id: id.into(), value: Value::U64(u64::from_be_bytes(value)) }
}

#[inline]
fn wide1([a, b, value]: [u8; 3]) -> Element<'static> {
    Element { id: u16::from_be_bytes([a, b]), value: Value::U8(value) }
}

#[inline]
fn wide2([a, b, value @ ..]: [u8; 4]) -> Element<'static> {
    Element { id: u16::from_be_bytes([a, b]), value: Value::U16(u16::from_be_bytes(value)) }
}

#[inline]
fn wide4([a, b, value @ ..]: [u8; 6]) -> Element<'static> {
    Element { id: u16::from_be_bytes([a, b]), value: Value::U32(u32::from_be_bytes(value)) }
}

#[inline]
fn wide8([a, b, value @ ..]: [u8; 10]) -> Element<'static> {
    Element { id: u16::from_be_bytes([a, b]), value: Value::U64(u64::from_be_bytes(value)) }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    /// The groups were walked when the frame was opened, so the only end is the end of the bytes.
    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.left == 0 {
            self.enter_group()?;
        }
        self.left -= 1;
        match self.group {
            Group::Narrow1 => self.take().map(narrow1),
            Group::Narrow2 => self.take().map(narrow2),
            Group::Narrow4 => self.take().map(narrow4),
            Group::Narrow8 => self.take().map(narrow8),
            Group::Wide1 => self.take().map(wide1),
            Group::Wide2 => self.take().map(wide2),
            Group::Wide4 => self.take().map(wide4),
            Group::Wide8 => self.take().map(wide8),
            Group::Start | Group::Variable => self.take_variable(),
        }
    }

    /// Group by group: `for_each`, `sum` and the like go through here and are faster than a `for` loop.
    #[inline]
    fn fold<B, F: FnMut(B, Element<'a>) -> B>(mut self, init: B, mut step: F) -> B {
        let mut folded = init;
        while self.left > 0 || self.enter_group().is_some() {
            folded = match self.group {
                Group::Narrow1 => self.fold_fixed(folded, |folded, bytes| step(folded, narrow1(bytes))),
                Group::Narrow2 => self.fold_fixed(folded, |folded, bytes| step(folded, narrow2(bytes))),
                Group::Narrow4 => self.fold_fixed(folded, |folded, bytes| step(folded, narrow4(bytes))),
                Group::Narrow8 => self.fold_fixed(folded, |folded, bytes| step(folded, narrow8(bytes))),
                Group::Wide1 => self.fold_fixed(folded, |folded, bytes| step(folded, wide1(bytes))),
                Group::Wide2 => self.fold_fixed(folded, |folded, bytes| step(folded, wide2(bytes))),
                Group::Wide4 => self.fold_fixed(folded, |folded, bytes| step(folded, wide4(bytes))),
                Group::Wide8 => self.fold_fixed(folded, |folded, bytes| step(folded, wide8(bytes))),
                Group::Start | Group::Variable => {
                    self.left -= 1;
                    match self.take_variable() {
                        Some(element) => step(folded, element),
                        None => return folded,
                    }
                }
            };
        }
        folded
    }
}

impl std::iter::FusedIterator for Elements<'_> {}
