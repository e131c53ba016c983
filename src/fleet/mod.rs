//! A fleet of simulated trackers: it logs in, sends newest first, waits for each answer, reconnects and resends what was
//! not acknowledged, packed anew. Every record follows from (tracker, number), so that the audit can make it again.

pub mod audit;
mod route;
mod tracker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use teltonika_codecs::Imei;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use route::Route;
pub use tracker::Tracker;

/// What the fleet does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The service.
    pub target: SocketAddr,
    /// Number of trackers.
    pub devices: u32,
    /// Records in a packet.
    pub records: u8,
    /// Packets of each tracker; `None` goes on until the stop.
    pub packets: Option<u32>,
    /// Records a second of the whole fleet; `None` sends as fast as answers come.
    pub rate: Option<f64>,
    /// One packet in so many loses its answer, and its records come again in another packet; 0 never.
    pub lose_answer_every: u32,
    /// Number of the first tracker in the test range.
    pub first_device: u32,
    /// Device time of every tracker's first record, milliseconds since 1970-01-01 UTC.
    pub start_ms: u64,
}

/// Live counts of a running fleet.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records sent, each time anew.
    pub sent: AtomicU64,
    /// Records in acknowledged packets.
    pub acknowledged: AtomicU64,
    /// Connections made after the first.
    pub reconnects: AtomicU64,
}

impl Progress {
    /// (sent, acknowledged, reconnects).
    #[must_use]
    pub fn read(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.sent), read(&self.acknowledged), read(&self.reconnects))
    }
}

/// What the service told one tracker: it answered for its first `acknowledged` records.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The tracker's route, from which its records follow.
    pub route: Route,
    /// Records 0 to this are acknowledged.
    pub acknowledged: u64,
}

/// Runs the fleet to the end of its plan or to the stop.
pub async fn run(plan: Plan, progress: Arc<Progress>, stop: CancellationToken) -> Vec<Told> {
    let mut trackers = JoinSet::new();
    for number in 0..plan.devices {
        let tracker = Tracker::new(plan, number, Arc::clone(&progress));
        trackers.spawn(tracker.run(stop.clone()));
    }
    let mut told = Vec::new();
    while let Some(ended) = trackers.join_next().await {
        // A tracker that panicked must not pass for one that was told nothing.
        told.push(ended.unwrap_or_else(|wrong| std::panic::resume_unwind(wrong.into_panic())));
    }
    told.sort_unstable_by_key(|told| told.route.imei());
    told
}

/// IMEI of a simulated tracker: a test range that no manufacturer gives out, with leading zeros.
#[must_use]
pub fn test_imei(number: u32) -> Imei {
    Imei::try_from(TEST_RANGE + u64::from(number)).expect("the range and every u32 stay below 10^15")
}

/// The next moment at which a tracker of this plan may send, evenly spread over the fleet.
async fn pace(plan: &Plan, begun: Instant, packets: u64, number: u32) {
    if let Some(rate) = plan.rate {
        let seconds_a_packet = f64::from(plan.devices) * f64::from(plan.records) / rate;
        #[expect(clippy::cast_precision_loss, reason = "packets of one run are far below 2^53")]
        let due = (packets as f64 + f64::from(number) / f64::from(plan.devices)) * seconds_a_packet;
        sleep_until(begun + Duration::from_secs_f64(due.min(MOST_WAIT))).await;
    }
}

/// Reporting body 00 is reserved for tests.
const TEST_RANGE: u64 = 1_000_000_000_000;
const MOST_WAIT: f64 = 1e9;
