//! A fleet of simulated trackers: it logs in, sends newest first, waits for each answer, reconnects and resends what was
//! not acknowledged, packed anew. Every record follows from (tracker, number), so that the audit can make it again.
//!
//! ```text
//! course ─► route ─sample─► packet ─bytes─► link ─► service        backlog decides what goes into a packet,
//!             └─────────── record ────────► audit ◄─ database      tracker joins the two
//! ```

pub mod audit;
mod backlog;
mod clocks;
mod course;
mod database;
mod elements;
mod link;
mod packet;
mod progress;
mod registered;
mod route;
mod tracker;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use teltonika_codecs::Imei;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use clocks::Clocks;
pub use database::{Connect, Database, DatabaseError};
pub use progress::Progress;
pub use registered::registered;
pub use route::Route;
use tracker::Tracker;

/// What the fleet does. [`Plan::new`] is a small one that ends; change what should be different.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The service.
    pub target: SocketAddr,
    /// Number of trackers.
    pub devices: u32,
    /// Records in a packet, 1 to 150.
    pub records: u8,
    /// Packets of each tracker; `None` goes on until the stop.
    pub packets: Option<u32>,
    /// Records a second of the whole fleet; `None` sends as fast as answers come.
    pub rate: Option<f64>,
    /// One packet in so many loses its answer, and its records come again in another packet; 0 never.
    pub lose_answer_every: u32,
    /// After so many packets a tracker closes its connection and makes another; 0 never.
    pub reconnect_every: u32,
    /// Number of the first tracker in the test range.
    pub first_device: u32,
    /// Device time of the first record of every tracker whose clock is right, milliseconds since 1970-01-01 UTC.
    pub start_ms: u64,
    /// Which clocks are wrong.
    pub clocks: Clocks,
    /// Addresses to connect from, 127.0.0.1 and on, for a target on loopback; 1 leaves it to the system. One address has
    /// about 28,000 ports.
    pub sources: u16,
}

impl Plan {
    /// 25 trackers with 100 packets of 10 records, as fast as answers come; one answer in 20 lost, clocks right.
    #[must_use]
    pub fn new(target: SocketAddr, start_ms: u64) -> Self {
        Self {
            target,
            devices: 25,
            records: 10,
            packets: Some(100),
            rate: None,
            lose_answer_every: 20,
            reconnect_every: 0,
            first_device: 0,
            start_ms,
            clocks: Clocks::Right,
            sources: 1,
        }
    }

    /// The route of the tracker at a place of the plan, from 0.
    #[must_use]
    pub fn route(&self, place: u32) -> Route {
        let number = self.first_device + place;
        Route::new(test_imei(number), number, self.start_ms).with_clocks(self.clocks)
    }
}

/// What the service told one tracker.
#[derive(Clone, Debug)]
pub struct Told {
    /// The tracker's route, from which its records follow.
    pub route: Route,
    low: u64,
    late: Range<u64>,
    sent_to: u64,
}

impl Told {
    /// A tracker that was told "accepted" for its first records, and sent some more that were not answered.
    #[must_use]
    pub fn new(route: Route, acknowledged: u64, unanswered: u64) -> Self {
        let sent_to = acknowledged + unanswered;
        Self { route, low: acknowledged, late: acknowledged..acknowledged, sent_to }
    }

    /// Number of acknowledged records, each counted once.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.low + (self.late.end - self.late.start)
    }

    /// Whether record n was acknowledged.
    #[must_use]
    pub fn is_acknowledged(&self, n: u64) -> bool {
        n < self.low || self.late.contains(&n)
    }

    /// Records from this number on were never sent; those below were, acknowledged or not.
    #[must_use]
    pub fn sent_to(&self) -> u64 {
        self.sent_to
    }
}

/// Runs the fleet to the end of its plan or to the stop. Gives what each tracker was told, by IMEI.
pub async fn run(plan: Plan, progress: Arc<Progress>, stop: CancellationToken) -> Vec<Told> {
    let mut trackers = JoinSet::new();
    for place in 0..plan.devices {
        let tracker = Tracker::new(plan, place, Arc::clone(&progress));
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

/// Waits for the moment at which a tracker of this plan may send, evenly spread over the fleet, or for the stop.
async fn pace(plan: &Plan, begun: Instant, packets: u64, place: u32, stop: &CancellationToken) {
    if let Some(rate) = plan.rate {
        let seconds_a_packet = f64::from(plan.devices) * f64::from(plan.records) / rate;
        #[expect(clippy::cast_precision_loss, reason = "packets of one run are far below 2^53")]
        let due = (packets as f64 + f64::from(place) / f64::from(plan.devices)) * seconds_a_packet;
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sleep_until(begun + Duration::from_secs_f64(due.min(MOST_WAIT))) => {}
        }
    }
}

/// Reporting body 00 is reserved for tests.
const TEST_RANGE: u64 = 1_000_000_000_000;
const MOST_WAIT: f64 = 1e9;
