//! The wakers of the open sessions of registered devices. An idle session may wait an hour for bytes; when its device is
//! removed, that session alone is woken, and asks again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use teltonika_codecs::Imei;

use super::registered::{Admission, LoginDecision};

/// Wakers by device and session: several sockets of one device are normal.
#[derive(Debug, Default)]
pub(super) struct SessionWakers(Mutex<BTreeMap<(Imei, u64), Waker>>);

/// One session in the list; dropping it removes the session.
#[derive(Debug)]
pub struct RegisteredSession<'a> {
    admission: &'a Admission,
    imei: Imei,
    /// The number of the session, as in the log.
    session: u64,
    /// The number of list changes at the last check.
    seen: u64,
    waker: Option<Waker>,
}

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

impl<'a> RegisteredSession<'a> {
    pub(super) fn new(admission: &'a Admission, imei: Imei, session: u64) -> Self {
        Self { admission, imei, session, seen: admission.changes(), waker: None }
    }

    /// Whether the device is still registered. Call it at every poll of the session with its waker, which is woken when the
    /// answer changes. It costs two comparisons while the list is the same.
    pub fn is_registered(&mut self, waker: &Waker) -> bool {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
            self.admission.wakers().lock().insert((self.imei, self.session), waker.clone());
        }
        // After the registration: a change that missed the waker is seen here.
        let now = self.admission.changes();
        if now == self.seen {
            return true;
        }
        self.seen = now;
        self.admission.decide(self.imei) == LoginDecision::Accepted
    }
}

impl Drop for RegisteredSession<'_> {
    fn drop(&mut self) {
        if self.waker.is_some() {
            let left = self.admission.wakers().lock().remove(&(self.imei, self.session));
            // Not under the lock: this may drop the last reference to a task.
            drop(left);
        }
    }
}
