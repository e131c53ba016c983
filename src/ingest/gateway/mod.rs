//! The gateway: one listener, one session a socket. It hands entries to the gate and never sees the store.
//!
//! `session` decides from bytes and time what to do next; `connection` is the socket around it, `handover` its way to the gate,
//! `unanswered` what it owes the tracker; `listener` admits.

mod close;
mod connection;
mod evidence;
mod handover;
mod listener;
mod session;
mod sockets;
mod unanswered;

use std::sync::Arc;
use std::time::Duration;

pub use close::CloseReason;
pub use connection::serve;
pub use evidence::Evidence;
pub use listener::{Limits, run};
pub use session::{Session, Step};

use self::sockets::Sockets;
use crate::ingest::admission::Admission;
use crate::ingest::intake::Gate;
use crate::metrics::{GatewayMetrics, Tally};
use odograph_journal::WallClock;

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
    gate: Gate,
    timeouts: Timeouts,
    metrics: GatewayMetrics,
    tally: Arc<Tally>,
    sockets: Arc<Sockets>,
    evidence: Option<Evidence>,
    admission: Option<Arc<Admission>>,
    wall: WallClock,
}

impl Gateway {
    /// A gateway that hands entries to `gate`, with the time that `wall` shows, and frames with a wrong checksum to `evidence`.
    /// It lets in whom `admission` knows; without one, every tracker.
    #[must_use]
    pub fn new(
        gate: Gate,
        timeouts: Timeouts,
        metrics: GatewayMetrics,
        tally: Arc<Tally>,
        evidence: Option<Evidence>,
        admission: Option<Arc<Admission>>,
        wall: WallClock,
    ) -> Self {
        Self { gate, timeouts, metrics, tally, sockets: Arc::default(), evidence, admission, wall }
    }
}
