//! The gateway: one listener, one session a socket. It hands entries to the intake and never sees the store.
//!
//! `session` decides from bytes and time what to do next; `connection` is the socket around it, `handover` its way to the intake,
//! `answers` what it owes the tracker; `listener` admits.

mod answers;
mod close;
mod connection;
mod crc_dump;
mod handover;
mod listener;
mod metrics;
mod session;
mod sockets;

use std::sync::Arc;
use std::time::Duration;

pub use close::CloseReason;
pub use connection::serve;
pub use crc_dump::CrcDump;
pub use listener::{Limits, run};
pub use metrics::{FrameCodec, GatewayMetrics, LoginResult};
pub use session::{Session, SessionStep};

use self::sockets::Sockets;
use crate::ingest::admission::Admission;
use crate::ingest::intake::Intake;
use crate::metrics::Tally;
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
    intake: Intake,
    timeouts: Timeouts,
    metrics: GatewayMetrics,
    tally: Arc<Tally>,
    sockets: Arc<Sockets>,
    crc_dump: Option<CrcDump>,
    admission: Option<Arc<Admission>>,
    wall: WallClock,
}

impl Gateway {
    /// A gateway that hands entries to `intake`, with the time that `wall` shows, and frames with a wrong checksum to `crc_dump`.
    /// It lets in whom `admission` knows; without one, every tracker.
    #[must_use]
    pub fn new(
        intake: Intake,
        timeouts: Timeouts,
        metrics: GatewayMetrics,
        tally: Arc<Tally>,
        crc_dump: Option<CrcDump>,
        admission: Option<Arc<Admission>>,
        wall: WallClock,
    ) -> Self {
        Self { intake, timeouts, metrics, tally, sockets: Arc::default(), crc_dump, admission, wall }
    }
}
