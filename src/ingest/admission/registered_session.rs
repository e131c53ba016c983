//! The session of a registered device. An idle session may wait an hour for bytes; when its device is removed, that session
//! alone is woken, and asks again.

use std::task::Waker;

use teltonika_codecs::Imei;

use super::registered::{Admission, LoginDecision};

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

impl<'a> RegisteredSession<'a> {
    /// Registers the session of a device. Call it before [`Admission::decide`], so that the session notices every later
    /// change.
    #[must_use]
    pub fn new(admission: &'a Admission, imei: Imei, session: u64) -> Self {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::SystemTime;

    use super::super::list::DeviceList;
    use super::*;

    fn imei(number: u64) -> Imei {
        Imei::try_from(number).unwrap()
    }

    fn list(numbers: &[u64]) -> DeviceList {
        numbers.iter().map(|number| imei(*number)).collect()
    }

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waker() -> (Arc<WakeCount>, Waker) {
        let woken = Arc::new(WakeCount::default());
        (Arc::clone(&woken), woken.into())
    }

    fn times(woken: &WakeCount) -> usize {
        woken.0.load(Ordering::Relaxed)
    }

    #[test]
    fn every_session_of_a_removed_device_is_woken_and_no_other() {
        let admission = Admission::new();
        admission.install(list(&[1, 2]), SystemTime::now());
        let wakers = [waker(), waker(), waker(), waker()];
        let mut sessions = [(1, 10), (1, 11), (2, 12), (1, 13)]
            .map(|(device, session)| RegisteredSession::new(&admission, imei(device), session));
        for (session_guard, (_, waker)) in sessions.iter_mut().zip(&wakers) {
            assert!(session_guard.is_registered(waker));
        }
        let [first, second, other, gone] = sessions;
        drop(gone);
        admission.install(list(&[2]), SystemTime::now());
        assert_eq!(wakers.each_ref().map(|(woken, _)| times(woken)), [1, 1, 0, 0]);
        let held = [first, second, other].map(|mut session_guard| session_guard.is_registered(&wakers[0].1));
        assert_eq!(held, [false, false, true]);
    }

    #[test]
    fn a_removal_between_question_and_seat_is_noticed() {
        let admission = Admission::new();
        admission.install(list(&[1]), SystemTime::now());
        let mut session_guard = RegisteredSession::new(&admission, imei(1), 1);
        assert_eq!(admission.decide(imei(1)), LoginDecision::Accepted);
        admission.install(list(&[]), SystemTime::now());
        assert!(!session_guard.is_registered(&waker().1));
    }

    #[test]
    fn a_device_that_is_there_again_keeps_its_session() {
        let admission = Admission::new();
        admission.install(list(&[1]), SystemTime::now());
        let (mut session_guard, (_, waker)) = (RegisteredSession::new(&admission, imei(1), 1), waker());
        assert!(session_guard.is_registered(&waker));
        admission.install(list(&[]), SystemTime::now());
        admission.install(list(&[1]), SystemTime::now());
        assert!(session_guard.is_registered(&waker));
    }
}
