//! One simulated tracker: stop-and-wait, newest first, reconnects with back-off, repacks what was not answered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use teltonika_codecs::{encode, reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Plan, Progress, Route, Told, pace, test_imei};

/// A tracker and what it remembers.
pub struct Tracker {
    plan: Plan,
    number: u32,
    route: Route,
    progress: Arc<Progress>,
    acknowledged: u64,
    packets: u64,
    connections: u64,
    /// The last answer was lost on purpose: the same records go out again, and a new one with them.
    repack: bool,
}

impl Tracker {
    /// Tracker `number` of a plan.
    #[must_use]
    pub fn new(plan: Plan, number: u32, progress: Arc<Progress>) -> Self {
        let number = plan.first_device + number;
        let route = Route::new(test_imei(number), number, plan.start_ms);
        Self { plan, number, route, progress, acknowledged: 0, packets: 0, connections: 0, repack: false }
    }

    /// Drives until its packets are sent or the stop. At a stop it waits a little for the answer it is owed.
    pub async fn run(mut self, stop: CancellationToken) -> Told {
        let begun = Instant::now();
        let drive = async {
            let mut failures = 0;
            while !self.finished() && !stop.is_cancelled() {
                if self.connection(begun, &stop).await.is_ok() {
                    failures = 0;
                } else {
                    // The vendor's list begins with none and goes to minutes; a test fleet is more eager.
                    failures = (failures + 1).min(6);
                    sleep(FIRST_BACK_OFF * (1 << failures)).await;
                }
            }
        };
        tokio::select! {
            () = drive => {}
            () = async { stop.cancelled().await; sleep(LAST_ANSWER).await } => {}
        }
        Told { route: self.route, acknowledged: self.acknowledged }
    }

    fn finished(&self) -> bool {
        self.left() == 0
    }

    /// Records of the plan that are not acknowledged.
    fn left(&self) -> u64 {
        let all = |packets| u64::from(self.plan.records) * u64::from(packets);
        self.plan.packets.map_or(u64::MAX, |packets| all(packets).saturating_sub(self.acknowledged))
    }

    /// One connection: login, then packets until the plan's end, an error or a lost answer.
    async fn connection(&mut self, begun: Instant, stop: &CancellationToken) -> io::Result<()> {
        let mut stream = timeout(ANSWER_PATIENCE, TcpStream::connect(self.plan.target)).await??;
        stream.set_nodelay(true)?;
        if self.connections > 0 {
            self.progress.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        self.connections += 1;
        stream.write_all(&encode::login(self.route.imei())).await?;
        if self.answer::<1>(&mut stream).await? != reply::LOGIN_ACCEPTED {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        while !self.finished() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = pace(&self.plan, begun, self.packets, self.number - self.plan.first_device) => {}
            }
            // A repacked resend takes a newer record along, where the plan has one left.
            let records = self.plan.records.saturating_add(u8::from(self.repack));
            let records = records.min(u8::try_from(self.left()).unwrap_or(u8::MAX));
            stream.write_all(&self.packet(records)?).await?;
            self.progress.sent.fetch_add(records.into(), Ordering::Relaxed);
            let ack = self.answer::<4>(&mut stream).await?;
            if ack != reply::tcp_ack(records) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.progress.acknowledged.fetch_add(records.into(), Ordering::Relaxed);
            if self.loses_this_answer() {
                // The service has stored the records and this tracker does not know: they will come twice.
                self.repack = true;
                return Ok(());
            }
            self.repack = false;
            self.acknowledged += u64::from(records);
            self.packets += 1;
        }
        Ok(())
    }

    /// The next records that were not acknowledged, newest first as trackers send by default (section 2.6).
    fn packet(&self, records: u8) -> io::Result<Vec<u8>> {
        let next = self.acknowledged..self.acknowledged + u64::from(records);
        let records: Vec<_> = next.rev().map(|n| self.route.record(n)).collect();
        encode::frame(self.route.codec(), &records).map_err(io::Error::other)
    }

    fn loses_this_answer(&self) -> bool {
        let every = u64::from(self.plan.lose_answer_every);
        every > 0 && !self.repack && (self.packets + u64::from(self.number)) % every == every - 1
    }

    async fn answer<const N: usize>(&self, stream: &mut TcpStream) -> io::Result<[u8; N]> {
        let mut answer = [0; N];
        timeout(ANSWER_PATIENCE, stream.read_exact(&mut answer)).await??;
        Ok(answer)
    }
}

const LAST_ANSWER: Duration = Duration::from_secs(2);
const FIRST_BACK_OFF: Duration = Duration::from_millis(25);
/// The vendor's newer default of the response timeout.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
