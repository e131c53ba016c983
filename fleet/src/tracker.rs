//! One simulated tracker: stop-and-wait, newest first, reconnects with back-off, packs unanswered records again.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backlog::Backlog;
use crate::connection::TrackerConnection;
use crate::packet::PacketMaker;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::TrackerReport;
use crate::route::Route;

/// A tracker and what it remembers.
pub(super) struct Tracker {
    plan: Plan,
    /// Its index in the plan, from 0.
    index: u32,
    route: Route,
    progress: Arc<Progress>,
    backlog: Backlog,
    packets: PacketMaker,
    answered: u64,
    connections: u64,
}

/// Why a connection ended without an error.
enum ConnectionEnd {
    /// Everything is acknowledged, or the fleet stops.
    Finished,
    /// Trackers close idle connections, lose answers, and come back.
    Reconnect,
}

impl Tracker {
    /// The tracker at an index of a plan.
    pub(super) fn new(plan: Plan, index: u32, progress: Arc<Progress>) -> Self {
        let route = plan.route(index);
        let all = plan.packets.map_or(u64::MAX / 2, |packets| u64::from(plan.records) * u64::from(packets));
        let backlog = Backlog::new(plan.first_device + index, plan.records, all);
        let packets = PacketMaker::new(route);
        Self { plan, index, route, progress, backlog, packets, answered: 0, connections: 0 }
    }

    /// Drives until its packets are sent or the stop. At the stop it waits a little for an outstanding answer.
    pub(super) async fn run(mut self, stop: CancellationToken) -> TrackerReport {
        let begun = Instant::now();
        let drive = async {
            let mut failures = 0;
            while !self.backlog.is_empty() && !stop.is_cancelled() {
                match self.connection(begun, &stop).await {
                    Ok(ConnectionEnd::Finished) => return,
                    Ok(ConnectionEnd::Reconnect) => failures = 0,
                    Err(_) => {
                        self.backlog.lost();
                        // The vendor's delays begin with none and grow to minutes; a test fleet is more eager.
                        failures = (failures + 1).min(6);
                        sleep(FIRST_BACK_OFF * (1 << failures)).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = drive => {}
            () = async { stop.cancelled().await; sleep(LAST_ANSWER).await } => {}
        }
        TrackerReport::of_backlog(self.route, &self.backlog)
    }

    /// One connection: login, then packets until the plan's end, the stop, an error or a lost answer.
    async fn connection(&mut self, begun: Instant, stop: &CancellationToken) -> io::Result<ConnectionEnd> {
        let mut connection = TrackerConnection::open(self.plan.target, self.source(), self.route.imei()).await?;
        self.progress.connected(self.connections > 0);
        self.connections += 1;
        loop {
            self.pace(begun, stop).await;
            if stop.is_cancelled() {
                return Ok(ConnectionEnd::Finished);
            }
            let Some(packet) = self.backlog.next() else { return Ok(ConnectionEnd::Finished) };
            let frame = self.packets.frame(packet.count(), packet.records());
            self.progress.sent(packet.count());
            let took = connection.deliver(frame, packet.count()).await?;
            self.progress.acknowledged(packet.count(), took);
            if self.is_turn(self.plan.lose_answer_every) && !self.backlog.resends() {
                // The service stored the records and this tracker does not know: they will arrive twice.
                self.backlog.lost();
                return Ok(ConnectionEnd::Reconnect);
            }
            self.backlog.answered(&packet);
            let closes = self.is_turn(self.plan.reconnect_every);
            self.answered += 1;
            if closes && !self.backlog.is_empty() {
                return Ok(ConnectionEnd::Reconnect);
            }
        }
    }

    /// Waits until the plan's rate permits the next packet, or for the stop.
    async fn pace(&self, begun: Instant, stop: &CancellationToken) {
        if let Some(due) = self.plan.send_after(self.index, self.answered) {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = sleep_until(begun + due) => {}
            }
        }
    }

    /// Whether it is this packet's turn, once in so many. Trackers take theirs at different packets.
    fn is_turn(&self, every: u32) -> bool {
        let every = u64::from(every);
        every > 0 && (self.answered + u64::from(self.plan.first_device + self.index)) % every == every - 1
    }

    /// The address to connect from if the plan has several: 127.0.0.1, 127.0.0.2 and on.
    fn source(&self) -> Option<Ipv4Addr> {
        let several = self.plan.sources > 1;
        let offset = self.index % u32::from(self.plan.sources.max(1));
        several.then(|| Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + offset))
    }
}

/// How long a stopped tracker waits for an outstanding answer.
const LAST_ANSWER: Duration = Duration::from_secs(2);
const FIRST_BACK_OFF: Duration = Duration::from_millis(25);
