//! The listener: a permit before each accept, limits in all and an address, sessions tracked to their end.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::close::CloseReason;
use super::connection;
use super::context::Gateway;
use super::metrics::GatewayMetrics;

/// How many connections are served at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all; further ones wait in the kernel's queue.
    pub connections: usize,
    /// From one address; further ones are closed at once.
    pub per_address: Option<usize>,
}

/// Accepts and serves until `stop`, then waits for the sessions. Accept errors neither end nor spin it.
pub async fn run(listener: TcpListener, gateway: Arc<Gateway>, limits: Limits, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let addresses = Arc::new(AddressCounts::default());
    let sessions = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let (permit, stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(wrong) => {
                pause_after(&wrong, &stop).await;
                continue;
            }
        };
        gateway.metrics.opened.increment(1);
        let slot = match limits.per_address {
            None => None,
            Some(most) => {
                let slot = AddressCounts::enter(&addresses, peer, most);
                if slot.is_none() {
                    gateway.metrics.closed(CloseReason::AddressLimit);
                    continue;
                }
                slot
            }
        };
        let number = gateway.sockets.number();
        tracing::debug!(session = number, %peer, "connected");
        let open = OpenConnection::new(&gateway.metrics);
        let (gateway, stop) = (Arc::clone(&gateway), stop.clone());
        sessions.spawn(async move {
            let _held = (permit, slot, open);
            let reason = connection::serve(stream, Some(peer), number, &gateway, &stop).await;
            gateway.metrics.closed(reason);
        });
    }
    drop(listener);
    sessions.close();
    sessions.wait().await;
}

type Accepted = (tokio::sync::OwnedSemaphorePermit, TcpStream, IpAddr);

/// Cancel-safe: a permit without a connection is given back.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // Mobile networks drop links without a word; keepalive finds them long before the idle timeout does.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(4);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok((permit, stream, peer.ip().to_canonical()))
}

async fn pause_after(wrong: &io::Error, stop: &CancellationToken) {
    match wrong.kind() {
        // The peer went away between its connection and our accept.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidInput => {}
        _ => {
            tracing::warn!(error = %wrong, "cannot accept connections for the moment");
            tokio::select! {
                () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Counts an open connection, however its session ends.
struct OpenConnection(metrics::Gauge);

impl OpenConnection {
    fn new(metrics: &GatewayMetrics) -> Self {
        metrics.open.increment(1);
        Self(metrics.open.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Connections by address.
#[derive(Debug, Default)]
struct AddressCounts(Mutex<HashMap<IpAddr, usize>>);

impl AddressCounts {
    /// Counts a connection, unless its address has as many as it may.
    fn enter(addresses: &Arc<Self>, address: IpAddr, most: usize) -> Option<AddressSlot> {
        let mut counts = addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(AddressSlot { addresses: Arc::clone(addresses), address })
    }
}

/// A connection's slot among those of its address.
struct AddressSlot {
    addresses: Arc<AddressCounts>,
    address: IpAddr,
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const KEEPALIVE_IDLE: Duration = Duration::from_mins(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
