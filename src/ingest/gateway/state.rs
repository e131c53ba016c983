//! The state of a connection: what it does next with the bytes of its peer. Answers are written in every state.
//!
//! ```text
//! Reading, Buffered ──► Blocked    the intake has no room for an item
//! Blocked           ──► Buffered   there is room
//! Reading           ──► Buffered   too many answers are due, and whole items may be left
//! Buffered          ──► Reading    what is left is incomplete
//! each of them      ──► Closing    the peer, the service or the session ends it
//! Closing           ──► the end    everything is answered
//! ```

use tokio::time::Instant;

use super::close::CloseReason;
use super::room::RoomWait;

/// What a connection does next, apart from answering.
pub(super) enum ConnectionState {
    /// It reads. The buffer holds an incomplete item at most.
    Reading {
        /// How many bytes the item lacks, if that is known.
        missing: Option<usize>,
    },
    /// The buffer may hold whole items. They go first, as soon as the answers of earlier ones leave room.
    Buffered,
    /// The intake has no room for what came. The socket is not read, and TCP holds the peer.
    Blocked {
        /// Completes when there is room.
        room: RoomWait,
        /// When the wait began.
        since: Instant,
    },
    /// It reads no more, and ends once everything is answered.
    Closing {
        /// What the end is called.
        reason: CloseReason,
        /// When it began.
        since: Instant,
    },
}

impl ConnectionState {
    /// The state of a connection that ends for `reason`.
    pub(super) fn closing(reason: CloseReason, now: Instant) -> Self {
        Self::Closing { reason, since: now }
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Self::Closing { .. })
    }

    /// How many bytes more the buffer needs room for.
    pub(super) fn missing(&self) -> usize {
        match self {
            Self::Reading { missing } => missing.unwrap_or(0),
            Self::Buffered | Self::Blocked { .. } | Self::Closing { .. } => 0,
        }
    }

    /// When it began to wait for someone other than the peer's next bytes.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        match self {
            Self::Reading { .. } | Self::Buffered => None,
            Self::Blocked { since, .. } | Self::Closing { since, .. } => Some(*since),
        }
    }
}
