//! The gateway: one listener, one session a socket. It hands frames to the commit gate and never sees the store.
//!
//! `session` decides from bytes and time what to do next; `connection` is the socket around it; `listener` admits.

mod buffers;
mod close;
mod connection;
mod listener;
mod session;

use std::sync::Arc;
use std::time::Duration;

pub use close::CloseReason;
pub use listener::{Limits, run};
pub use session::{Session, Step};

use crate::metrics::{GatewayMetrics, Tally};
use crate::receipt::CommitGate;

/// Patience with a peer.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the connection to the last byte of the login.
    pub login: Duration,
    /// From the first to the last byte of a frame.
    pub frame: Duration,
    /// Nothing at all.
    pub idle: Duration,
}

/// What every session shares.
pub struct Gateway {
    pub(crate) gate: CommitGate,
    pub(crate) timeouts: Timeouts,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) tally: Arc<Tally>,
    pub(crate) buffers: buffers::Buffers,
}

impl Gateway {
    /// A gateway that hands frames to `gate`.
    #[must_use]
    pub fn new(gate: CommitGate, timeouts: Timeouts, metrics: GatewayMetrics, tally: Arc<Tally>) -> Self {
        Self { gate, timeouts, metrics, tally, buffers: buffers::Buffers::default() }
    }
}
