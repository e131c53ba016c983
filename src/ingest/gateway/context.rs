//! What every session shares. It lives as long as the listener.

use std::sync::Arc;

use super::crc_dump::CrcDump;
use super::metrics::GatewayMetrics;
use super::session::Timeouts;
use super::sockets::Sockets;
use crate::ingest::admission::Admission;
use crate::ingest::intake::Intake;
use crate::log_limit::LogLimit;
use crate::metrics::Tally;
use odograph_journal::WallClock;

/// The parts of the service that sessions use, and the figures that they count.
pub struct Gateway {
    pub(super) intake: Intake,
    pub(super) timeouts: Timeouts,
    pub(super) metrics: GatewayMetrics,
    pub(super) tally: Arc<Tally>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) crc_dump: Option<CrcDump>,
    pub(super) admission: Option<Arc<Admission>>,
    pub(super) wall: WallClock,
    pub(super) log_limits: LogLimits,
}

/// Bounds on the log lines that peers can cause, by kind.
#[derive(Default)]
pub(super) struct LogLimits {
    pub(super) undecodable: LogLimit,
    pub(super) refused: LogLimit,
    pub(super) closed: LogLimit,
    pub(super) strangers: LogLimit,
}

impl Gateway {
    /// Makes a gateway that hands entries to `intake`, with `wall` as their receive time. Frames with a wrong checksum
    /// go to `crc_dump`. Without `admission`, every tracker may log in.
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
        let (sockets, log_limits) = (Arc::default(), LogLimits::default());
        Self { intake, timeouts, metrics, tally, sockets, crc_dump, admission, wall, log_limits }
    }
}
