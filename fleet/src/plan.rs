//! What the fleet does.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clocks::Clocks;
use crate::imei::test_imei;
use crate::route::Route;

/// What the fleet does. [`Plan::new`] is a small plan that ends; change the fields that should differ.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Address of the service.
    pub target: SocketAddr,
    /// Number of trackers.
    pub devices: u32,
    /// Records in a packet, 1 to 150.
    pub records: u8,
    /// Packets of each tracker. `None` sends until the stop.
    pub packets: Option<u32>,
    /// Records a second of the whole fleet. `None` sends as fast as answers come.
    pub rate: Option<f64>,
    /// One packet in so many loses its answer, and its records come again in another packet. 0 is never.
    pub lose_answer_every: u32,
    /// After so many packets a tracker closes its connection and opens another. 0 is never.
    pub reconnect_every: u32,
    /// Number of the first tracker in the test range.
    pub first_device: u32,
    /// Device time of the first record of every tracker whose clock is right, milliseconds since 1970-01-01 UTC.
    pub start_ms: u64,
    /// Which clocks are wrong.
    pub clocks: Clocks,
    /// Number of addresses to connect from, 127.0.0.1 and on, for a target on loopback. With 1 the system chooses. One
    /// address has about 28,000 ports.
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

    /// The route of the tracker at an index of the plan, from 0.
    #[must_use]
    pub fn route(&self, index: u32) -> Route {
        let number = self.first_device + index;
        Route::new(test_imei(number), number, self.start_ms).with_clocks(self.clocks)
    }

    /// When the tracker at an index sends its next packet, after it sent so many: the rate is spread evenly over the fleet.
    /// `None` sends at once.
    pub(crate) fn send_after(&self, index: u32, packets: u64) -> Option<Duration> {
        let seconds_a_packet = f64::from(self.devices) * f64::from(self.records) / self.rate?;
        #[expect(clippy::cast_precision_loss, reason = "packets of one run are far below 2^53")]
        let due = (packets as f64 + f64::from(index) / f64::from(self.devices)) * seconds_a_packet;
        Some(Duration::from_secs_f64(due.min(MAX_WAIT_S)))
    }
}

/// Some 30 years: longer than any run, and within what a clock can add.
const MAX_WAIT_S: f64 = 1e9;
