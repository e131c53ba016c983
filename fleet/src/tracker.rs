//! One simulated tracker: stop-and-wait, newest first, reconnects with back-off, repacks what was not answered.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::link::Link;
use super::packet::PacketMaker;
use super::{Plan, Progress, Route, Told, pace};

/// A tracker and what it remembers.
pub(super) struct Tracker {
    plan: Plan,
    /// Its place in the plan, from 0.
    place: u32,
    route: Route,
    progress: Arc<Progress>,
    backlog: Backlog,
    packets: PacketMaker,
    answered: u64,
    connections: u64,
}

/// Why a connection ended in good order.
enum Closed {
    /// Everything is acknowledged, or the fleet stops.
    Done,
    /// Trackers close idle links, lose answers, and come back.
    ComesBack,
}

impl Tracker {
    /// The tracker at a place of a plan.
    pub(super) fn new(plan: Plan, place: u32, progress: Arc<Progress>) -> Self {
        let route = plan.route(place);
        let all = plan.packets.map_or(u64::MAX / 2, |packets| u64::from(plan.records) * u64::from(packets));
        let backlog = Backlog::new(plan.first_device + place, plan.records, all);
        let packets = PacketMaker::new(route);
        Self { plan, place, route, progress, backlog, packets, answered: 0, connections: 0 }
    }

    /// Drives until its packets are sent or the stop. At a stop it waits a little for the answer it is owed.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Told {
        let begun = Instant::now();
        let drive = async {
            let mut failures = 0;
            while !self.backlog.is_empty() && !stop.is_cancelled() {
                match self.connection(begun, &stop).await {
                    Ok(Closed::Done) => return,
                    Ok(Closed::ComesBack) => failures = 0,
                    Err(_) => {
                        self.backlog.lost();
                        // The vendor's list begins with none and goes to minutes; a test fleet is more eager.
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
        let (low, late, sent_to) = self.backlog.told();
        Told { route: self.route, low, late, sent_to }
    }

    /// One connection: login, then packets until the plan's end, the stop, an error or a lost answer.
    async fn connection(&mut self, begun: Instant, stop: &CancellationToken) -> io::Result<Closed> {
        let mut link = Link::open(self.plan.target, self.source(), self.route.imei()).await?;
        self.progress.connected(self.connections > 0);
        self.connections += 1;
        loop {
            pace(&self.plan, begun, self.answered, self.place, stop).await;
            if stop.is_cancelled() {
                return Ok(Closed::Done);
            }
            let Some(packet) = self.backlog.next() else { return Ok(Closed::Done) };
            let frame = self.packets.frame(packet.count(), packet.records());
            self.progress.sent(packet.count());
            let took = link.deliver(frame, packet.count()).await?;
            self.progress.acknowledged(packet.count(), took);
            if self.turn(self.plan.lose_answer_every) && !self.backlog.resends() {
                // The service has stored the records and this tracker does not know: they will come twice.
                self.backlog.lost();
                return Ok(Closed::ComesBack);
            }
            self.backlog.answered(&packet);
            let closes = self.turn(self.plan.reconnect_every);
            self.answered += 1;
            if closes && !self.backlog.is_empty() {
                return Ok(Closed::ComesBack);
            }
        }
    }

    /// Whether it is this packet's turn, once in so many; trackers take theirs at different packets.
    fn turn(&self, every: u32) -> bool {
        let every = u64::from(every);
        every > 0 && (self.answered + u64::from(self.plan.first_device + self.place)) % every == every - 1
    }

    /// The address to connect from, where the plan has several: 127.0.0.1, 127.0.0.2 and on.
    fn source(&self) -> Option<Ipv4Addr> {
        let several = self.plan.sources > 1;
        let place = self.place % u32::from(self.plan.sources.max(1));
        several.then(|| Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + place))
    }
}

const LAST_ANSWER: Duration = Duration::from_secs(2);
const FIRST_BACK_OFF: Duration = Duration::from_millis(25);
