//! A bad network between trackers and the service: it cuts, drops answers, freezes, and forwards byte by byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::load::run_in_background;

/// What the network does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkConditions {
    Normal,
    /// Every byte is a segment of its own, both ways.
    ByteByByte,
    /// Answers to frames do not arrive, and the connection is reset a moment later.
    AnswersLost,
    /// The tracker vanishes silently in the middle of a frame: the service's end stays open.
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
    conditions: Mutex<NetworkConditions>,
    counts: Counts,
    /// A change resets every connection.
    cuts: watch::Receiver<u64>,
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    cut: watch::Sender<u64>,
}

impl Relay {
    /// Starts a relay in front of a service.
    pub(crate) fn new(service: SocketAddr) -> Self {
        let (cut, cuts) = watch::channel(0);
        let shared = Shared { conditions: Mutex::new(NetworkConditions::Normal), counts: Counts::default(), cuts };
        let shared = Arc::new(shared);
        let own = Arc::clone(&shared);
        let address = run_in_background(move |say| async move {
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

    /// Sets the conditions for open and future connections.
    pub(crate) fn set(&self, conditions: NetworkConditions) {
        *self.shared.conditions.lock().unwrap() = conditions;
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
                let conditions = *shared.conditions.lock().unwrap();
                let is_frame = read > LOGIN;
                if conditions == NetworkConditions::HalfOpen && is_frame {
                    let _ = service.write_all(&sent[..read / 2]).await;
                    shared.counts.half_open.fetch_add(1, Ordering::Relaxed);
                    let _ = tracker.set_zero_linger();
                    drop(tracker);
                    // Nothing is sent and nothing is closed: the service has to notice by itself.
                    while !matches!(service.read(&mut answered).await, Ok(0) | Err(_)) {}
                    return;
                }
                if pass(&mut service, &sent[..read], conditions, &shared).await.is_err() {
                    return;
                }
            }
            read = service.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                let conditions = *shared.conditions.lock().unwrap();
                if conditions == NetworkConditions::AnswersLost && read == ACK {
                    shared.counts.answers_lost.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    return reset(tracker, service);
                }
                if pass(&mut tracker, &answered[..read], conditions, &shared).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn pass(to: &mut TcpStream, bytes: &[u8], conditions: NetworkConditions, shared: &Shared) -> std::io::Result<()> {
    if conditions != NetworkConditions::ByteByByte {
        return to.write_all(bytes).await;
    }
    for byte in bytes {
        to.write_all(std::slice::from_ref(byte)).await?;
        shared.counts.single_bytes.fetch_add(1, Ordering::Relaxed);
        // This gives the other end a chance to read the byte alone.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Resets both ends in place of closing them.
fn reset(tracker: TcpStream, service: TcpStream) {
    for stream in [tracker, service] {
        let _ = stream.set_zero_linger();
    }
}

/// Bytes of a login and of an answer to a frame.
const LOGIN: usize = 17;
const ACK: usize = 4;
