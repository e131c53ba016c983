//! The open sockets of each device. A tracker whose link broke comes back long before its old socket times out, so several
//! sockets of one device are normal, and many of them are not: the oldest one goes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use foldhash::fast::RandomState;
use teltonika_codecs::Imei;

/// The sockets of each device that has any.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// By IMEI, the newest socket last; at most [`MOST_OF_A_DEVICE`].
    open: Mutex<HashMap<u64, Vec<Arc<OpenSocket>>, RandomState>>,
    /// How many sessions there have been.
    opened: AtomicU64,
}

/// A socket that is open.
#[derive(Debug)]
struct OpenSocket {
    /// The number of the session, as in the log.
    number: u64,
    is_replaced: AtomicBool,
    /// Of the session, while it waits.
    waker: Mutex<Option<Waker>>,
}

/// One socket in the list; dropping it removes the socket.
#[derive(Debug)]
pub(super) struct SocketEntry {
    sockets: Arc<Sockets>,
    imei: Imei,
    socket: Arc<OpenSocket>,
}

impl Sockets {
    /// Draws the number of a session.
    pub(super) fn number(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes a session the newest of its device. Returns the number of the one before, if that is still open. The oldest one
    /// of too many is replaced.
    pub(super) fn enter(sockets: &Arc<Self>, imei: Imei, number: u64) -> (SocketEntry, Option<u64>) {
        let socket = Arc::new(OpenSocket { number, is_replaced: AtomicBool::new(false), waker: Mutex::default() });
        let mut open = sockets.open();
        let of_device = open.entry(imei.get()).or_default();
        let before = of_device.last().map(|socket| socket.number);
        let replaced = (of_device.len() >= MOST_OF_A_DEVICE).then(|| of_device.remove(0));
        of_device.push(Arc::clone(&socket));
        drop(open);
        if let Some(replaced) = replaced {
            replaced.is_replaced.store(true, Ordering::Release);
            let waker = replaced.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
            waker.into_iter().for_each(Waker::wake);
        }
        (SocketEntry { sockets: Arc::clone(sockets), imei, socket }, before)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Vec<Arc<OpenSocket>>, RandomState>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SocketEntry {
    /// Whether newer sockets of the device took its place. Otherwise `waker` is woken when they do.
    pub(super) fn is_replaced(&self, waker: &Waker) -> bool {
        let mut held = self.socket.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
        // Read last: a replacement that comes later finds the waker and wakes it.
        self.socket.is_replaced.load(Ordering::Acquire)
    }
}

impl Drop for SocketEntry {
    fn drop(&mut self) {
        let mut open = self.sockets.open();
        if let Some(of_device) = open.get_mut(&self.imei.get()) {
            of_device.retain(|socket| !Arc::ptr_eq(socket, &self.socket));
            if of_device.is_empty() {
                open.remove(&self.imei.get());
            }
        }
    }
}

/// A tracker that reconnects leaves a few sockets behind until they time out.
const MOST_OF_A_DEVICE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_socket_of_a_device_is_named() {
        let sockets = Arc::new(Sockets::default());
        let imei = Imei::try_from(7).unwrap();
        let (first, none) = Sockets::enter(&sockets, imei, sockets.number());
        let (second, before) = Sockets::enter(&sockets, imei, sockets.number());
        assert_eq!((none, before), (None, Some(1)));
        drop(first);
        let (third, before) = Sockets::enter(&sockets, imei, sockets.number());
        assert_eq!(before, Some(2));
        let waker = Waker::noop();
        let more: Vec<_> = (0..3).map(|_| Sockets::enter(&sockets, imei, sockets.number()).0).collect();
        assert!(second.is_replaced(waker) && !third.is_replaced(waker), "the oldest of five goes");
        assert!(more.iter().all(|socket| !socket.is_replaced(waker)));
        drop(more);
        drop(third);
        drop(second);
        assert!(sockets.open().is_empty());
    }
}
