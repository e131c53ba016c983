//! Who may log in: with `admission = registered` only the devices that stand in the table `devices`.
//!
//! ```text
//! devices ──NOTIFY, timer──► loader ──► Admission ◄──ask── gateway
//!              known-devices ◄──┘          └──► unknown-devices.json, for the operator
//! ```
//!
//! - [`Admission`] is what sessions ask: the whole list in memory, so that no login costs a query, whoever tries.
//! - `seats` are the open sessions of registered devices, to wake those whose device is removed.
//! - `loader` reads the table, on a thread of its own. Whatever goes wrong there, the last list stays in force.
//! - `file` is that list on disk: a restart during an outage of the database still knows its trackers.
//! - `strangers` are the devices that were refused of late, a bounded list.

mod file;
mod list;
mod loader;
mod metrics;
mod replace;
mod seats;
mod strangers;
mod tasks;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use teltonika_codecs::Imei;

pub use file::{KnownFile, Remembered};
pub use list::DeviceList;
pub use metrics::AdmissionMetrics;
pub use replace::FileError;
pub use seats::Seat;
pub(crate) use strangers::time;
pub use strangers::{Stranger, StrangerFile, Strangers};
pub use tasks::{AdmissionTask, spawn};

use self::seats::Seats;

/// What sessions ask. Shared by all of them and the loader.
#[derive(Debug)]
pub struct Admission {
    list: RwLock<Option<Arc<DeviceList>>>,
    /// How often the list has changed.
    changes: AtomicU64,
    /// When the list was last known to be that of the database; before there is one, when this began.
    confirmed: Mutex<SystemTime>,
    seats: Seats,
    strangers: Mutex<Strangers>,
}

/// The answer to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The device is registered.
    Accepted,
    /// It is not.
    Unknown,
    /// Nobody knows: there has never been a list.
    NeverKnown,
}

/// What a new list changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) added: usize,
    pub(crate) removed: usize,
    /// Whether there was none before.
    pub(crate) first: bool,
}

impl Admission {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            list: RwLock::default(),
            changes: AtomicU64::new(0),
            confirmed: Mutex::new(SystemTime::now()),
            seats: Seats::default(),
            strangers: Mutex::default(),
        }
    }

    /// Whether a device may log in.
    #[must_use]
    pub fn ask(&self, imei: Imei) -> Verdict {
        match &*self.list.read().unwrap_or_else(PoisonError::into_inner) {
            None => Verdict::NeverKnown,
            Some(list) if list.contains(imei) => Verdict::Accepted,
            Some(_) => Verdict::Unknown,
        }
    }

    /// The place of a session whose device logs in. To be taken before [`Self::ask`], so that it notices every later change.
    #[must_use]
    pub fn seat(&self, imei: Imei, session: u64) -> Seat<'_> {
        Seat::new(self, imei, session)
    }

    /// A device was refused: the operator may want to know it.
    pub fn refused(&self, imei: Imei, address: Option<IpAddr>) {
        self.strangers().note(imei, address, SystemTime::now());
    }

    /// Puts a list in force, and wakes the sessions of devices that are no longer on it.
    pub(crate) fn install(&self, list: DeviceList, confirmed: SystemTime) -> Change {
        let list = Arc::new(list);
        let before = self.current();
        let empty = DeviceList::default();
        let (old, first) = (before.as_deref().unwrap_or(&empty), before.is_none());
        let removed = old.without(&list);
        let added = list.len() + removed.len() - old.len();
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = confirmed;
        if first || added > 0 || !removed.is_empty() {
            *self.list.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&list));
            // Before sessions are woken, who look at this.
            self.changes.fetch_add(1, Ordering::Release);
            self.seats.wake(&removed);
            self.strangers().forget(|imei| list.contains(imei));
        }
        Change { added, removed: removed.len(), first }
    }

    /// The list in force.
    pub(crate) fn current(&self) -> Option<Arc<DeviceList>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long ago the list was last known to be that of the database; before there is one, how long nobody has known.
    pub(crate) fn age(&self) -> Duration {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        SystemTime::now().duration_since(confirmed).unwrap_or_default()
    }

    pub(crate) fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::new()
    }
}

/// Devices that are held in memory, 8 bytes each.
pub(crate) const DEVICES_MAX: usize = 2_000_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    fn imei(number: u64) -> Imei {
        Imei::try_from(number).unwrap()
    }

    fn list(numbers: &[u64]) -> DeviceList {
        numbers.iter().map(|number| imei(*number)).collect()
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waker() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken::default());
        (Arc::clone(&woken), woken.into())
    }

    fn times(woken: &Woken) -> usize {
        woken.0.load(Ordering::Relaxed)
    }

    #[test]
    fn nobody_is_known_before_the_first_list_even_if_that_is_empty() {
        let admission = Admission::new();
        assert_eq!(admission.ask(imei(1)), Verdict::NeverKnown);
        let change = admission.install(list(&[]), SystemTime::now());
        assert_eq!(change, Change { added: 0, removed: 0, first: true });
        assert_eq!(admission.ask(imei(1)), Verdict::Unknown);
        let change = admission.install(list(&[1, 2]), SystemTime::now());
        assert_eq!(change, Change { added: 2, removed: 0, first: false });
        assert_eq!(admission.ask(imei(1)), Verdict::Accepted);
        let change = admission.install(list(&[2, 3, 4]), SystemTime::now());
        assert_eq!(change, Change { added: 2, removed: 1, first: false });
        assert_eq!(admission.ask(imei(1)), Verdict::Unknown);
    }

    #[test]
    fn every_session_of_a_removed_device_is_woken_and_no_other() {
        let admission = Admission::new();
        admission.install(list(&[1, 2]), SystemTime::now());
        let wakers = [waker(), waker(), waker(), waker()];
        let mut seats =
            [(1, 10), (1, 11), (2, 12), (1, 13)].map(|(device, session)| admission.seat(imei(device), session));
        for (seat, (_, waker)) in seats.iter_mut().zip(&wakers) {
            assert!(seat.is_held(waker));
        }
        let [first, second, other, gone] = seats;
        drop(gone);
        admission.install(list(&[2]), SystemTime::now());
        assert_eq!(wakers.each_ref().map(|(woken, _)| times(woken)), [1, 1, 0, 0]);
        let held = [first, second, other].map(|mut seat| seat.is_held(&wakers[0].1));
        assert_eq!(held, [false, false, true]);
    }

    #[test]
    fn a_removal_between_question_and_seat_is_noticed() {
        let admission = Admission::new();
        admission.install(list(&[1]), SystemTime::now());
        let mut seat = admission.seat(imei(1), 1);
        assert_eq!(admission.ask(imei(1)), Verdict::Accepted);
        admission.install(list(&[]), SystemTime::now());
        assert!(!seat.is_held(&waker().1));
    }

    #[test]
    fn a_device_that_is_there_again_keeps_its_session() {
        let admission = Admission::new();
        admission.install(list(&[1]), SystemTime::now());
        let (mut seat, (_, waker)) = (admission.seat(imei(1), 1), waker());
        assert!(seat.is_held(&waker));
        admission.install(list(&[]), SystemTime::now());
        admission.install(list(&[1]), SystemTime::now());
        assert!(seat.is_held(&waker));
    }

    #[test]
    fn who_is_registered_is_no_stranger_any_more() {
        let admission = Admission::new();
        admission.install(list(&[]), SystemTime::now());
        admission.refused(imei(1), None);
        admission.refused(imei(2), None);
        admission.install(list(&[1]), SystemTime::now());
        let left: Vec<_> = admission.strangers().newest_first().iter().map(|stranger| stranger.imei).collect();
        assert_eq!(left, [imei(2)]);
    }
}
