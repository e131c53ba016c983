//! The wakers of the open sessions of registered devices, by device and session.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use teltonika_codecs::Imei;

/// Wakers by device and session: several sockets of one device are normal.
#[derive(Debug, Default)]
pub(super) struct SessionWakers(Mutex<BTreeMap<(Imei, u64), Waker>>);

impl SessionWakers {
    /// Wakes every session of these devices.
    pub(super) fn wake(&self, devices: &[Imei]) {
        // In parts, because logins wait for the lock.
        for part in devices.chunks(256) {
            let wakers: Vec<_> = {
                let wakers = self.lock();
                let of = |imei| wakers.range((imei, 0)..=(imei, u64::MAX)).map(|(_, waker)| waker.clone());
                part.iter().flat_map(|imei| of(*imei)).collect()
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<(Imei, u64), Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
