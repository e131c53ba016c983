//! Hostile peers beside honest trackers: strangers and registered ones, each with a way to make the service spend what it has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use odograph_fleet::Plan;
use odograph_testkit::{Tracker, frame, framed, imei, metric, record};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::load::{Load, runtime};
use crate::report::Outcome;
use crate::setup::DrillSetup;

crate::drills! {
    "hostile-peers", short, peers, "peers that announce, flood, ping, hang and invent, beside 200 honest trackers";
}

async fn peers(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let plan = Plan { devices: 200, rate: Some(1_000.0), reconnect_every: 0, ..setup.plan(serve.trackers) };
    let load = Load::start(plan);
    let rss = async || metric(serve.admin, "process_resident_memory_bytes").await;
    let (quiet, seconds) = (setup.times(5, 20), setup.times(10, 60));
    let alone = answers(serve.trackers, Duration::from_secs(quiet)).await;
    let before = rss().await;

    let hostile = Hostile::start(serve.trackers);
    let among = answers(serve.trackers, Duration::from_secs(seconds)).await;
    let after = rss().await;
    let done = hostile.stop();
    setup.say(&format!(
        "honest answers, p99: {alone:?} alone, {among:?} among {done} hostile acts; memory {:.1} MiB more",
        (after - before) / MIB
    ));
    assert!(among <= Duration::from_millis(250), "honest answers took {among:?} at p99, and {alone:?} alone");
    assert!(after - before <= 64.0 * MIB, "{before} bytes resident, then {after}");
    load.goes_on(500).await;
    let reports = load.stop().await;
    serve.settled_within(Duration::from_mins(2)).await;
    serve.terminate_in_order().await;
    let findings = setup.audit_rows(&database, &reports).await;
    Outcome { findings, faults: vec![("hostile acts", done)] }
}

/// The 99th percentile of how long honest trackers wait for an answer.
async fn answers(trackers: SocketAddr, time: Duration) -> Duration {
    let end = Instant::now() + time;
    let probes = (0..20).map(|number| {
        tokio::spawn(async move {
            let mut tracker = Tracker::login(trackers, &imei(9_000_000 + number).to_string()).await;
            let mut waits = Vec::new();
            while Instant::now() < end {
                let sent = Instant::now();
                assert_eq!(tracker.deliver(&frame(&[record(now_ms(), 1)])).await, 1);
                waits.push(sent.elapsed());
                sleep(Duration::from_millis(100)).await;
            }
            waits
        })
    });
    let mut waits = Vec::new();
    for probe in probes.collect::<Vec<_>>() {
        waits.extend(probe.await.unwrap());
    }
    waits.sort_unstable();
    waits[waits.len() * 99 / 100]
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Hostile peers on a thread of their own.
struct Hostile {
    stop: CancellationToken,
    acts: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Hostile {
    fn start(trackers: SocketAddr) -> Self {
        let (stop, acts) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let (until, count) = (stop.clone(), Arc::clone(&acts));
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                for number in 0..100 {
                    tokio::spawn(again(Peer::Announces, trackers, number, Arc::clone(&count)));
                    tokio::spawn(again(Peer::HangsBeforeLogin, trackers, number, Arc::clone(&count)));
                }
                for number in 0..4 {
                    for peer in [
                        Peer::FloodsUndecodable,
                        Peer::FloodsPadding,
                        Peer::Pings,
                        Peer::InventsDevices,
                        Peer::SpreadsTimes,
                        Peer::SpeaksNonsense,
                    ] {
                        tokio::spawn(again(peer, trackers, number, Arc::clone(&count)));
                    }
                }
                until.cancelled().await;
            });
        });
        Self { stop, acts, thread }
    }

    /// Stops them. Returns how much they did.
    fn stop(self) -> u64 {
        self.stop.cancel();
        self.thread.join().unwrap();
        self.acts.load(Ordering::Relaxed)
    }
}

/// What a peer does, until the service closes its connection. Then it comes back.
#[derive(Clone, Copy)]
enum Peer {
    /// A long frame, of which a few bytes come.
    Announces,
    /// Nothing at all.
    HangsBeforeLogin,
    /// Right checksums around what cannot be decoded, as short as it may be.
    FloodsUndecodable,
    /// A frame, and zeros behind it.
    FloodsPadding,
    /// Pings before its login.
    Pings,
    /// A device that nobody has, one frame, and the next one.
    InventsDevices,
    /// Records of many days.
    SpreadsTimes,
    /// Bytes of no protocol.
    SpeaksNonsense,
}

async fn again(peer: Peer, trackers: SocketAddr, number: u64, acts: Arc<AtomicU64>) {
    loop {
        // An error is the service's answer.
        let _ = act(peer, trackers, number, &acts).await;
        sleep(Duration::from_millis(50)).await;
    }
}

async fn act(peer: Peer, trackers: SocketAddr, number: u64, acts: &AtomicU64) -> std::io::Result<()> {
    let mut random = fastrand::Rng::new();
    let device = match peer {
        Peer::InventsDevices => random.u64(10_000_000..99_000_000),
        _ => 8_000_000 + number,
    };
    let mut stream = TcpStream::connect(trackers).await?;
    if !matches!(peer, Peer::HangsBeforeLogin | Peer::Pings | Peer::SpeaksNonsense) {
        stream.write_all(&[&[0, 15], imei(device).to_string().as_bytes()].concat()).await?;
        stream.read_exact(&mut [0]).await?;
    }
    let mut answers = vec![0; 4096];
    loop {
        acts.fetch_add(1, Ordering::Relaxed);
        match peer {
            Peer::Announces => {
                stream.write_all(&[&[0; 4][..], &(60_000_u32).to_be_bytes(), &[0x0C, 1], &[0; 16]].concat()).await?;
                // Until it is closed.
                while stream.read(&mut answers).await? > 0 {}
                return Ok(());
            }
            Peer::HangsBeforeLogin => {
                while stream.read(&mut answers).await? > 0 {}
                return Ok(());
            }
            Peer::FloodsUndecodable => stream.write_all(&framed(&[0x63, 0, 0]).repeat(100)).await?,
            Peer::FloodsPadding => {
                stream.write_all(&[frame(&[record(now_ms(), 1)]), vec![0; 12]].concat()).await?;
            }
            Peer::Pings => stream.write_all(&[0xFF; 100]).await?,
            Peer::InventsDevices => {
                stream.write_all(&frame(&[record(now_ms(), 1)])).await?;
                stream.read_exact(&mut [0; 4]).await?;
                return Ok(());
            }
            Peer::SpreadsTimes => {
                let day = 86_400_000;
                let records: Vec<_> = (0..5).map(|_| record(now_ms() - day * random.u64(0..30), 1)).collect();
                stream.write_all(&frame(&records)).await?;
                sleep(Duration::from_secs(1)).await;
            }
            Peer::SpeaksNonsense => {
                let bytes: Vec<_> = (0..500).map(|_| random.u8(..)).collect();
                stream.write_all(&bytes).await?;
            }
        }
        // What is answered is read, so that its own window does not stop it.
        while let Ok(read) = timeout(Duration::from_millis(2), stream.read(&mut answers)).await {
            if read? == 0 {
                return Ok(());
            }
        }
    }
}

const MIB: f64 = 1_048_576.0;
