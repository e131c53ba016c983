//! How wide each codec writes its ids and counts (section 2.2), and the walk over a record's element groups.
//!
//! The walk runs over every record twice (when a frame is opened, and when its records are read), so it reads counts only
//! and skips groups of fixed width whole, compiled once for each codec.

/// The widths of one codec, in bytes, known when the walk is compiled.
pub(crate) trait Layout {
    /// An element id, and the event id.
    const ID: usize;
    /// The total and each group's count.
    const COUNT: usize;
    /// Whether a generation type follows the event id.
    const GENERATION_TYPE: bool;
    /// Whether a group of variable length follows the four of fixed width.
    const VARIABLE: bool;
}

/// Codec 8.
pub(crate) struct Codec8Layout;
/// Codec 8 Extended.
pub(crate) struct Codec8ELayout;
/// Codec 16.
pub(crate) struct Codec16Layout;

impl Layout for Codec8Layout {
    const ID: usize = 1;
    const COUNT: usize = 1;
    const GENERATION_TYPE: bool = false;
    const VARIABLE: bool = false;
}

impl Layout for Codec8ELayout {
    const ID: usize = 2;
    const COUNT: usize = 2;
    const GENERATION_TYPE: bool = false;
    const VARIABLE: bool = true;
}

impl Layout for Codec16Layout {
    const ID: usize = 2;
    const COUNT: usize = 1;
    const GENERATION_TYPE: bool = true;
    const VARIABLE: bool = false;
}

/// A structure that its bytes do not hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shortfall {
    /// Bytes from its beginning to the end of what is there.
    pub(crate) left: usize,
    /// What it is.
    pub(crate) what: &'static str,
}

/// Walks the groups; gives the bytes behind them.
#[inline]
pub(crate) fn skip_groups<L: Layout>(groups: &[u8]) -> Result<&[u8], Shortfall> {
    let rest = skip_fixed::<L, 1>(groups)?;
    let rest = skip_fixed::<L, 2>(rest)?;
    let rest = skip_fixed::<L, 4>(rest)?;
    let rest = skip_fixed::<L, 8>(rest)?;
    if L::VARIABLE { skip_variable::<L>(rest) } else { Ok(rest) }
}

#[inline]
fn skip_fixed<L: Layout, const WIDTH: usize>(group: &[u8]) -> Result<&[u8], Shortfall> {
    let short = |what| Shortfall { left: group.len(), what };
    let (count, elements) = number(group, L::COUNT).ok_or(short("count of an element group"))?;
    // At most 65,535 elements of ten bytes: far from an overflow.
    elements.get(count * (L::ID + WIDTH)..).ok_or(short("elements of fixed width"))
}

#[inline]
fn skip_variable<L: Layout>(group: &[u8]) -> Result<&[u8], Shortfall> {
    let short = Shortfall { left: group.len(), what: "count of an element group" };
    let (count, mut rest) = number(group, L::COUNT).ok_or(short)?;
    for _ in 0..count {
        let short = Shortfall { left: rest.len(), what: "element of variable length" };
        let (length, value) = rest.get(L::ID..).and_then(|rest| number(rest, 2)).ok_or(short)?;
        rest = value.get(length..).ok_or(short)?;
    }
    Ok(rest)
}

/// Reads the unsigned integer of one or two bytes.
#[inline]
pub(crate) fn number(bytes: &[u8], width: usize) -> Option<(usize, &[u8])> {
    if width == 1 {
        bytes.split_first().map(|(byte, rest)| (usize::from(*byte), rest))
    } else {
        bytes.split_first_chunk().map(|(pair, rest)| (usize::from(u16::from_be_bytes(*pair)), rest))
    }
}
