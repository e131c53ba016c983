//! An entry: what one session submitted at one time, and its bytes on disk.

use teltonika_codecs::Imei;

use crate::position::Position;

/// What an entry's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The data field of a frame with records.
    Frame,
    /// A data field whose checksum is right and whose structure is not.
    Undecodable,
    /// The data field of a message.
    Message,
}

impl EntryKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Frame, Self::Undecodable, Self::Message];

    /// The byte on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Frame => 1,
            Self::Undecodable => 2,
            Self::Message => 3,
        }
    }

    /// The name that people read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Undecodable => "undecodable",
            Self::Message => "message",
        }
    }

    fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// What is handed to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEntry<'a> {
    /// What the bytes are.
    pub kind: EntryKind,
    /// The device that sent them.
    pub imei: Imei,
    /// Receive time, microseconds since 1970-01-01 UTC.
    pub received_at_us: i64,
    /// The count that acknowledges it; the receipt names it, and the entry keeps it.
    pub records: u8,
    /// The bytes, of any content.
    pub bytes: &'a [u8],
}

/// An entry as read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place, and so its name, in the journal.
    pub position: Position,
    /// The tag of the mark behind it.
    pub tag: i64,
    /// What was handed in.
    pub entry: NewEntry<'a>,
}

impl NewEntry<'_> {
    /// Bytes on disk, which is also how far it moves the position.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        ENTRY_HEADER + self.bytes.len()
    }

    /// Appends header and bytes. The caller has checked that the length fits a group.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Self { kind, imei, received_at_us, records, bytes } = *self;
        let mut header = [0; ENTRY_HEADER];
        header[0..4].copy_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        header[4] = kind.code();
        header[5] = records;
        header[8..16].copy_from_slice(&imei.get().to_le_bytes());
        header[16..24].copy_from_slice(&received_at_us.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(bytes);
    }
}

/// Reads the entry at the head of a checked group's payload; gives it and its length. `None` is content that this version
/// does not know, or the end.
pub(super) fn decode(payload: &[u8]) -> Option<(NewEntry<'_>, usize)> {
    let (header, rest) = payload.split_first_chunk::<ENTRY_HEADER>()?;
    let [l0, l1, l2, l3, kind, records, _, _, i0, i1, i2, i3, i4, i5, i6, i7, time @ ..] = *header;
    let bytes = rest.get(..usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?)?;
    let entry = NewEntry {
        kind: EntryKind::of(kind)?,
        imei: Imei::try_from(u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7])).ok()?,
        received_at_us: i64::from_le_bytes(time),
        records,
        bytes,
    };
    Some((entry, entry.stored_len()))
}

/// Bytes before an entry's own.
pub const ENTRY_HEADER: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_halves_do_not() {
        for kind in EntryKind::ALL {
            let imei = Imei::try_from(1_000_000_000_042).unwrap();
            let entry = NewEntry { kind, imei, received_at_us: -5, records: 255, bytes: b"abc" };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            assert_eq!(decode(&bytes), Some((entry, 27)));
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), None);
            }
            bytes[4] = 9;
            assert_eq!(decode(&bytes), None, "a kind of a later version");
        }
    }
}
