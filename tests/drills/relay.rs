//! Stands between trackers and the service, and is the bad network: it cuts, swallows, freezes, and carries byte by byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::load::apart;

/// What the network does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Every byte is a segment of its own, both ways.
    ByteByByte,
    /// What the service answers to frames does not arrive, and the connection dies a moment later.
    AnswersLost,
    /// The tracker is gone without a word, in the middle of a frame: the service's end stays open.
    HalfOpen,
}

#[derive(Default)]
struct Counts {
    cut: AtomicU64,
    single_bytes: AtomicU64,
    answers_lost: AtomicU64,
    half_open: AtomicU64,
}

struct Shared {
    weather: Mutex<Weather>,
    counts: Counts,
    /// Moved on: every connection is reset.
    cuts: watch::Receiver<u64>,
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    cut: watch::Sender<u64>,
}

impl Relay {
    /// In front of a service.
    pub(crate) fn new(service: SocketAddr) -> Self {
        let (cut, cuts) = watch::channel(0);
        let shared = Shared { weather: Mutex::new(Weather::Fair), counts: Counts::default(), cuts };
        let shared = Arc::new(shared);
        let own = Arc::clone(&shared);
        let address = apart(move |say| async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            say.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((tracker, _)) = listener.accept().await {
                if let Ok(service) = TcpStream::connect(service).await {
                    tokio::spawn(carry(tracker, service, Arc::clone(&own)));
                }
            }
        });
        Self { address, shared, cut }
    }

    /// For connections that are there and those that come.
    pub(crate) fn turns(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Resets every connection.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn connections_cut(&self) -> u64 {
        self.shared.counts.cut.load(Ordering::Relaxed)
    }

    pub(crate) fn single_bytes(&self) -> u64 {
        self.shared.counts.single_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn answers_lost(&self) -> u64 {
        self.shared.counts.answers_lost.load(Ordering::Relaxed)
    }

    pub(crate) fn half_open(&self) -> u64 {
        self.shared.counts.half_open.load(Ordering::Relaxed)
    }
}

async fn carry(mut tracker: TcpStream, mut service: TcpStream, shared: Arc<Shared>) {
    let _ = (tracker.set_nodelay(true), service.set_nodelay(true));
    let mut cuts = shared.cuts.clone();
    cuts.mark_unchanged();
    let (mut sent, mut answered) = (vec![0; 1 << 14], vec![0; 64]);
    loop {
        tokio::select! {
            biased;
            _ = cuts.changed() => {
                shared.counts.cut.fetch_add(1, Ordering::Relaxed);
                return reset(tracker, service);
            }
            read = tracker.read(&mut sent) => {
                let Ok(read @ 1..) = read else { return };
                let weather = *shared.weather.lock().unwrap();
                let is_frame = read > LOGIN;
                if weather == Weather::HalfOpen && is_frame {
                    let _ = service.write_all(&sent[..read / 2]).await;
                    shared.counts.half_open.fetch_add(1, Ordering::Relaxed);
                    let _ = tracker.set_zero_linger();
                    drop(tracker);
                    // Nothing is sent and nothing is closed; the service has to find out.
                    while !matches!(service.read(&mut answered).await, Ok(0) | Err(_)) {}
                    return;
                }
                if pass(&mut service, &sent[..read], weather, &shared).await.is_err() {
                    return;
                }
            }
            read = service.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                let weather = *shared.weather.lock().unwrap();
                if weather == Weather::AnswersLost && read == ACK {
                    shared.counts.answers_lost.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    return reset(tracker, service);
                }
                if pass(&mut tracker, &answered[..read], weather, &shared).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn pass(to: &mut TcpStream, bytes: &[u8], weather: Weather, shared: &Shared) -> std::io::Result<()> {
    if weather != Weather::ByteByByte {
        return to.write_all(bytes).await;
    }
    for byte in bytes {
        to.write_all(std::slice::from_ref(byte)).await?;
        shared.counts.single_bytes.fetch_add(1, Ordering::Relaxed);
        // The other end has a chance to see this one alone.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Both ends get a reset in place of an end.
fn reset(tracker: TcpStream, service: TcpStream) {
    for stream in [tracker, service] {
        let _ = stream.set_zero_linger();
    }
}

/// Bytes of a login, and of an answer to a frame.
const LOGIN: usize = 17;
const ACK: usize = 4;
