//! How large a journal may be, and in what pieces.

use std::time::Duration;

use super::group::{SECTOR, extent};

/// Bounds of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    max_bytes: u64,
    segment_bytes: u64,
    group_bytes: u32,
    keep: Duration,
}

/// Bounds that no journal can keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    /// The whole is too small for its pieces.
    #[error("a journal of {max_bytes} bytes has no room for {LEAST_SEGMENTS} segments of {segment_bytes} bytes")]
    TooSmall {
        /// The whole.
        max_bytes: u64,
        /// One piece.
        segment_bytes: u64,
    },
    /// A group must fit a segment.
    #[error("a group of {group_bytes} bytes does not fit a segment of {segment_bytes} bytes")]
    GroupTooLarge {
        /// The group's entries.
        group_bytes: u32,
        /// The segment.
        segment_bytes: u64,
    },
}

impl Limits {
    /// A directory of at most `max_bytes`, in which committed entries are kept for `keep` while there is room.
    ///
    /// # Errors
    /// Below 512 KiB.
    pub fn new(max_bytes: u64, keep: Duration) -> Result<Self, InvalidLimits> {
        let segment_bytes = (max_bytes / USUAL_SEGMENTS).clamp(LEAST_SEGMENT, USUAL_SEGMENT) / SECTOR * SECTOR;
        let group_bytes = u32::try_from(segment_bytes / 2).unwrap_or(u32::MAX).min(USUAL_GROUP);
        Self::with_pieces(max_bytes, segment_bytes, group_bytes, keep)
    }

    /// With segments of a chosen length, rounded down to sectors, and with groups of at most `group_bytes` of entries.
    ///
    /// # Errors
    /// When the pieces do not fit the whole.
    pub fn with_pieces(
        max_bytes: u64,
        segment_bytes: u64,
        group_bytes: u32,
        keep: Duration,
    ) -> Result<Self, InvalidLimits> {
        let segment_bytes = segment_bytes / SECTOR * SECTOR;
        if segment_bytes.saturating_mul(LEAST_SEGMENTS) > max_bytes {
            return Err(InvalidLimits::TooSmall { max_bytes, segment_bytes });
        }
        if SECTOR + extent(group_bytes.into()) > segment_bytes || group_bytes > super::group::GROUP_LIMIT {
            return Err(InvalidLimits::GroupTooLarge { group_bytes, segment_bytes });
        }
        Ok(Self { max_bytes, segment_bytes, group_bytes, keep })
    }

    /// Bound of the directory.
    #[must_use]
    pub const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Length of a segment.
    #[must_use]
    pub const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Most bytes of entries in a group. The memory of a journal is twice this; entries beyond wait.
    #[must_use]
    pub const fn group_bytes(&self) -> u32 {
        self.group_bytes
    }

    /// How long committed entries are kept.
    #[must_use]
    pub const fn keep(&self) -> Duration {
        self.keep
    }

    /// Most files with a segment's length.
    pub(super) fn files(&self) -> usize {
        usize::try_from(self.max_bytes / self.segment_bytes).unwrap_or(usize::MAX)
    }
}

/// One written, one ready, one that waits for the database.
const LEAST_SEGMENTS: u64 = 3;
/// So that releasing one segment ends the state *full* in most cases.
const USUAL_SEGMENTS: u64 = 16;
const LEAST_SEGMENT: u64 = 160 * 1024;
/// By measurement: see `docs/performance.md`.
const USUAL_SEGMENT: u64 = 64 << 20;
const USUAL_GROUP: u32 = 8 << 20;
