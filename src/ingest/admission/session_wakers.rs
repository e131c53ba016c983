//! The open sessions of registered devices. An idle session waits for bytes that may not come for an hour; when its device is
//! removed, just that session is woken, and finds out itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use teltonika_codecs::Imei;

use super::{Admission, Verdict};

/// Sessions that wait, by device: several sockets of one are normal.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<BTreeMap<(Imei, u64), Waker>>);

/// The place of one session, left when it is dropped.
#[derive(Debug)]
pub struct Seat<'a> {
    admission: &'a Admission,
    imei: Imei,
    /// The number of the session, as in the log.
    session: u64,
    /// The list that the device is known to be on.
    seen: u64,
    waker: Option<Waker>,
}

impl Seats {
    /// Wakes every session of these devices.
    pub(super) fn wake(&self, devices: &[Imei]) {
        // In parts: logins wait for the lock.
        for part in devices.chunks(256) {
            let wakers: Vec<_> = {
                let seats = self.seats();
                let of = |imei| seats.range((imei, 0)..=(imei, u64::MAX)).map(|(_, waker)| waker.clone());
                part.iter().flat_map(|imei| of(*imei)).collect()
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<(Imei, u64), Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Seat<'a> {
    pub(super) fn new(admission: &'a Admission, imei: Imei, session: u64) -> Self {
        Self { admission, imei, session, seen: admission.changes(), waker: None }
    }

    /// Whether the device is still registered. To be asked whenever the session is polled, with its waker, which is called
    /// when the answer changes. Costs two comparisons while nothing has changed.
    pub fn is_held(&mut self, waker: &Waker) -> bool {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
            self.admission.seats.seats().insert((self.imei, self.session), waker.clone());
        }
        // After the registration: a change that missed the waker is seen here.
        let now = self.admission.changes();
        if now == self.seen {
            return true;
        }
        self.seen = now;
        self.admission.ask(self.imei) == Verdict::Accepted
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.waker.is_some() {
            let left = self.admission.seats.seats().remove(&(self.imei, self.session));
            // Not under the lock: it may be the last hold on a task.
            drop(left);
        }
    }
}
