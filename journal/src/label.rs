//! The first 52 bytes of every file: magic, format version, 32 bytes of content, checksum. The same in every version, so that an
//! older program can tell a newer file from a damaged one.

/// What a label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// Written in a format that this version reads: its content.
    Whole([u8; 32]),
    /// Written in a later format.
    OtherVersion(u32),
    /// It was a label.
    Damaged,
    /// Something else.
    NotOurs,
}

pub(super) fn encode(magic: [u8; 8], content: &[u8; 32]) -> [u8; LABEL_LEN] {
    let mut out = [0; LABEL_LEN];
    out[0..8].copy_from_slice(&magic);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[16..48].copy_from_slice(content);
    let sum = crc32fast::hash(&out[..48]);
    out[48..52].copy_from_slice(&sum.to_le_bytes());
    out
}

pub(super) fn decode(magic: [u8; 8], bytes: &[u8]) -> Label {
    let Some((label, _)) = bytes.split_first_chunk::<LABEL_LEN>() else {
        return if bytes.iter().all(|byte| *byte == 0) { Label::Damaged } else { Label::NotOurs };
    };
    let (summed, sum) = label.split_at(48);
    if sum != crc32fast::hash(summed).to_le_bytes() {
        // A label that lost some bits still looks like one; zeros are a label that is gone.
        let alike = label.iter().zip(magic).filter(|(left, right)| **left == *right).count() >= 6;
        let zeros = label.iter().all(|byte| *byte == 0);
        return if alike || zeros { Label::Damaged } else { Label::NotOurs };
    }
    match summed {
        [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, v2, v3, _, _, _, _, content @ ..]
            if [*m0, *m1, *m2, *m3, *m4, *m5, *m6, *m7] == magic =>
        {
            match (u32::from_le_bytes([*v0, *v1, *v2, *v3]), content.try_into()) {
                (FIRST_VERSION..=VERSION, Ok(content)) => Label::Whole(content),
                (version, _) => Label::OtherVersion(version),
            }
        }
        _ => Label::NotOurs,
    }
}

/// Bytes of a label.
pub(super) const LABEL_LEN: usize = 52;
/// The version of the whole format that is written.
pub const VERSION: u32 = 2;
const FIRST_VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"odotest\0";

    #[test]
    fn a_label_is_told_from_a_newer_a_damaged_and_a_foreign_one() {
        let label = encode(MAGIC, &[7; 32]);
        assert_eq!(decode(MAGIC, &label), Label::Whole([7; 32]));
        assert_eq!(decode(*b"odother\0", &label), Label::NotOurs);
        assert_eq!(decode(MAGIC, b"#!/bin/sh"), Label::NotOurs);
        assert_eq!(decode(MAGIC, &[0; 100]), Label::Damaged);
        for bit in 0..label.len() * 8 {
            let mut flipped = label;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(MAGIC, &flipped), Label::Damaged, "bit {bit}");
        }
        let mut older = label;
        older[8] = 1;
        let sum = crc32fast::hash(&older[..48]);
        older[48..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode(MAGIC, &older), Label::Whole([7; 32]));
        let mut newer = label;
        newer[8] = 3;
        let sum = crc32fast::hash(&newer[..48]);
        newer[48..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode(MAGIC, &newer), Label::OtherVersion(3));
    }
}
