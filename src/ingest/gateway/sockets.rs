//! The newest socket of each device. A tracker whose link broke comes back long before its old socket times out, so
//! several sockets of one device are normal.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use teltonika_codecs::Imei;

/// The newest socket of each device that has one.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Session numbers by IMEI.
    newest: Mutex<HashMap<u64, u64, RandomState>>,
    /// How many sessions there have been.
    opened: AtomicU64,
}

/// One socket in the list; dropping it removes the socket.
#[derive(Debug)]
pub(super) struct SocketEntry {
    sockets: Arc<Sockets>,
    imei: Imei,
    /// The number of the session, as in the log.
    number: u64,
}

impl Sockets {
    /// Draws the number of a session.
    pub(super) fn number(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes a session the newest of its device. Returns the number of the one before, if that is still open.
    pub(super) fn enter(sockets: &Arc<Self>, imei: Imei, number: u64) -> (SocketEntry, Option<u64>) {
        let before = sockets.newest().insert(imei.get(), number);
        (SocketEntry { sockets: Arc::clone(sockets), imei, number }, before)
    }

    fn newest(&self) -> MutexGuard<'_, HashMap<u64, u64, RandomState>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SocketEntry {
    fn drop(&mut self) {
        let mut newest = self.sockets.newest();
        if newest.get(&self.imei.get()) == Some(&self.number) {
            newest.remove(&self.imei.get());
        }
    }
}

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
        drop(third);
        drop(second);
        assert!(sockets.newest().is_empty());
    }
}
