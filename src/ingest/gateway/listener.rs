//! The listener accepts connections within the limits, and waits for its sessions when it stops. It takes a permit
//! before each accept, so that a full service leaves connections in the kernel's queue.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::close::CloseReason;
use super::connection;
use super::connection_slots::ConnectionSlots;
use super::context::Gateway;
use super::metrics::GatewayMetrics;

/// How many connections are served at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of all addresses together. Further ones wait in the kernel's queue.
    pub connections: usize,
    /// Of one address. Further ones are closed at once.
    pub per_address: Option<usize>,
}

/// Accepts and serves until `stop`, then waits for the sessions. An accept error does not end it, and it pauses after
/// most of them, so that it does not spin.
pub async fn run(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    slots: ConnectionSlots,
    per_address: Option<usize>,
    stop: CancellationToken,
) {
    let addresses = Arc::new(AddressCounts::default());
    let sessions = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (permit, stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error, &stop).await;
                continue;
            }
        };
        gateway.metrics.opened.increment(1);
        let slot = match per_address {
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
            let _guards = (permit, slot, open);
            let reason = connection::serve(stream, Some(peer), number, &gateway, &stop).await;
            gateway.metrics.closed(reason);
        });
    }
    drop(listener);
    sessions.close();
    sessions.wait().await;
}

/// The permit, the connection and its peer.
type Accepted = (tokio::sync::OwnedSemaphorePermit, TcpStream, IpAddr);

/// Takes a permit and accepts one connection. Cancel-safe: a permit without a connection is given back.
async fn accept(listener: &TcpListener, slots: &ConnectionSlots) -> io::Result<Accepted> {
    let permit = slots.take().await?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // Mobile networks drop links silently. Keepalive notices long before the idle timeout.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(4);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok((permit, stream, peer.ip().to_canonical()))
}

async fn pause_after(error: &io::Error, stop: &CancellationToken) {
    match error.kind() {
        // The peer closed the connection before it was accepted.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidInput => {}
        _ => {
            tracing::warn!(%error, "cannot accept connections for the moment");
            tokio::select! {
                () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Counts an open connection until it is dropped, so that every end of a session counts.
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

/// How many connections each address has.
#[derive(Debug, Default)]
struct AddressCounts(Mutex<HashMap<IpAddr, usize>>);

impl AddressCounts {
    /// Counts a connection, or returns nothing if its address has `most` already.
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

/// One connection of an address; dropping it frees the slot.
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

/// Errors such as a lack of file descriptors last a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const KEEPALIVE_IDLE: Duration = Duration::from_mins(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
