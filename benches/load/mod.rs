//! A load that costs little, so that a benchmark measures the service: packets are made beforehand, one thread, one epoll
//! loop, one write a packet and one read an answer. It runs as a separate process: the benchmark's own program, started again.
//!
//! ```text
//! benchmark ─ Load::prepare ─► child: makes packets, connects, logs in ─► "ready"
//!           ─ go ────────────► drives until its packets are through, or until stop ─► Report, one JSON line
//!           ─ drop ──────────► closes its connections
//! ```

mod child;
mod clock;
mod drive;
mod latency;
mod link;
mod packets;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub use child::run_if_asked;
pub use clock::monotonic_s;
use serde::{Deserialize, Serialize};

/// The settings of a load. [`Settings::new`] is a million records as fast as answers come.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The service, on loopback.
    pub target: SocketAddr,
    /// Number of trackers, each with one connection.
    pub devices: u32,
    /// Number of the first one in the test range.
    pub first_device: u32,
    /// Records in a packet.
    pub records: u8,
    /// Different packets of each tracker; `None` goes on until the stop.
    pub packets: Option<u32>,
    /// Percentage of the packets that are sent a second time, right after their answer.
    pub resend_percent: u64,
    /// Records a second of all trackers together, evenly spread, resent ones on top; `None` sends as fast as answers come.
    pub rate: Option<f64>,
    /// Packets that a tracker sends before it waits for an answer. Real ones stop at 1.
    pub window: usize,
    /// Addresses to connect from, 127.0.0.1 and on. One address has about 28,000 ports.
    pub sources: u8,
    /// Without a rate: how long answers gather before they are read. A wake-up for each costs both sides more than the
    /// answer itself; against a round of the whole fleet a millisecond is nothing.
    pub gather_us: u64,
    /// Answers of the first milliseconds are left out of the latency.
    pub warm_up_ms: u64,
    /// Device time of the first record.
    pub start_ms: u64,
}

impl Settings {
    /// A million records of 2,000 trackers, 10 a packet, 5 % of the packets sent again.
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            devices: 2_000,
            first_device: 0,
            records: 10,
            packets: Some(50),
            resend_percent: 5,
            rate: None,
            window: 1,
            sources: 1,
            gather_us: 1_000,
            warm_up_ms: 0,
            start_ms: NOON_MS,
        }
    }
}

/// The results of a load. Times are of the machine's monotonic clock, which all processes share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Answered packets.
    pub packets: u64,
    /// Records of answered packets, resent ones too.
    pub records: u64,
    /// The same, each record once: what must be in the table.
    pub distinct: u64,
    /// Packets that were sent and not answered.
    pub unanswered: u64,
    /// Connections that the service closed, or that gave a wrong answer.
    pub lost: u32,
    pub first_byte_s: f64,
    pub last_ack_s: f64,
    /// From a packet's write to its answer's read.
    pub ack_ms: Quantiles,
    /// The whole distribution: the share of answers within each number of milliseconds.
    pub ack_shares: Vec<(f64, f64)>,
    /// How far a paced load fell behind its own plan at most.
    pub late_ms: f64,
    /// Processor time from the first byte to the last answer.
    pub cpu_s: f64,
    /// The part of it outside the system.
    pub user_s: f64,
    /// How often it waited for something to come.
    pub waits: u64,
    /// Mean length of a frame.
    pub frame_bytes: f64,
}

impl Report {
    /// From the first byte to the last answer.
    pub fn seconds(&self) -> f64 {
        self.last_ack_s - self.first_byte_s
    }

    /// Processor time for a million records.
    pub fn cpu_s_per_million(&self) -> f64 {
        self.cpu_s / (self.records as f64 / 1e6)
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// A load in a separate process, which ends with this value.
pub struct Load {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Load {
    /// Starts the process and waits until its packets are made and its trackers are logged in.
    pub fn prepare(settings: &Settings) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([child::ARGUMENT, &serde_json::to_string(settings).unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut load = Self { child, orders, answers };
        assert_eq!(load.line(), child::READY, "the load could not connect");
        load
    }

    /// Starts the clock.
    pub fn go(&mut self) {
        self.orders.write_all(&[child::GO]).unwrap();
    }

    /// Stops sending. Answers to packets on their way still count.
    pub fn stop(&mut self) {
        self.orders.write_all(&[child::STOP]).unwrap();
    }

    /// Waits for the end. The connections stay open.
    pub fn report(&mut self) -> Report {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Noon: all records of a burst are of one day, which is one chunk.
const NOON_MS: u64 = 1_780_056_000_000;
