//! The devices that may log in, in memory: what sessions ask and the loader replaces.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use teltonika_codecs::Imei;

use super::list::DeviceList;
use super::session_wakers::SessionWakers;
use super::unknown_devices::UnknownDevices;

/// Decides on logins. Shared by all sessions and the loader.
#[derive(Debug)]
pub struct Admission {
    list: RwLock<Option<Arc<DeviceList>>>,
    /// Number of list changes.
    changes: AtomicU64,
    /// When the list last matched the database; before the first list, the time of the start.
    confirmed: Mutex<SystemTime>,
    wakers: SessionWakers,
    unknown: Mutex<UnknownDevices>,
}

/// The answer to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginDecision {
    /// The device is registered.
    Accepted,
    /// The device is not registered.
    Unknown,
    /// Not known: there has never been a list.
    NeverKnown,
}

/// What a new list changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListChange {
    pub(crate) added: usize,
    pub(crate) removed: usize,
    /// Whether this is the first list.
    pub(crate) first: bool,
}

impl Admission {
    /// Creates it without a list.
    #[must_use]
    pub fn new() -> Self {
        Self {
            list: RwLock::default(),
            changes: AtomicU64::new(0),
            confirmed: Mutex::new(SystemTime::now()),
            wakers: SessionWakers::default(),
            unknown: Mutex::default(),
        }
    }

    /// Decides whether a device may log in.
    #[must_use]
    pub fn decide(&self, imei: Imei) -> LoginDecision {
        match &*self.list.read().unwrap_or_else(PoisonError::into_inner) {
            None => LoginDecision::NeverKnown,
            Some(list) if list.contains(imei) => LoginDecision::Accepted,
            Some(_) => LoginDecision::Unknown,
        }
    }

    /// Notes a device that is not on the list, for the operator.
    pub fn note_unknown(&self, imei: Imei, address: Option<IpAddr>) {
        self.unknown().note(imei, address, SystemTime::now());
    }

    /// Replaces the list, and wakes the sessions of devices that are no longer on it.
    pub(crate) fn install(&self, list: DeviceList, confirmed: SystemTime) -> ListChange {
        let list = Arc::new(list);
        let before = self.current();
        let empty = DeviceList::default();
        let (old, first) = (before.as_deref().unwrap_or(&empty), before.is_none());
        let removed = old.without(&list);
        let added = list.len() + removed.len() - old.len();
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = confirmed;
        if first || added > 0 || !removed.is_empty() {
            *self.list.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&list));
            // Before the wake-up: sessions compare this number.
            self.changes.fetch_add(1, Ordering::Release);
            self.wakers.wake(&removed);
            self.unknown().forget(|imei| list.contains(imei));
        }
        ListChange { added, removed: removed.len(), first }
    }

    /// The list in force.
    pub(crate) fn current(&self) -> Option<Arc<DeviceList>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long ago the list last matched the database; before the first list, the time since the start.
    pub(crate) fn age(&self) -> Duration {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        SystemTime::now().duration_since(confirmed).unwrap_or_default()
    }

    pub(crate) fn unknown(&self) -> MutexGuard<'_, UnknownDevices> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wakers(&self) -> &SessionWakers {
        &self.wakers
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imei(number: u64) -> Imei {
        Imei::try_from(number).unwrap()
    }

    fn list(numbers: &[u64]) -> DeviceList {
        numbers.iter().map(|number| imei(*number)).collect()
    }

    #[test]
    fn nobody_is_known_before_the_first_list_even_if_that_is_empty() {
        let admission = Admission::new();
        assert_eq!(admission.decide(imei(1)), LoginDecision::NeverKnown);
        let change = admission.install(list(&[]), SystemTime::now());
        assert_eq!(change, ListChange { added: 0, removed: 0, first: true });
        assert_eq!(admission.decide(imei(1)), LoginDecision::Unknown);
        let change = admission.install(list(&[1, 2]), SystemTime::now());
        assert_eq!(change, ListChange { added: 2, removed: 0, first: false });
        assert_eq!(admission.decide(imei(1)), LoginDecision::Accepted);
        let change = admission.install(list(&[2, 3, 4]), SystemTime::now());
        assert_eq!(change, ListChange { added: 2, removed: 1, first: false });
        assert_eq!(admission.decide(imei(1)), LoginDecision::Unknown);
    }

    #[test]
    fn a_registered_device_leaves_the_list_of_unknown_devices() {
        let admission = Admission::new();
        admission.install(list(&[]), SystemTime::now());
        admission.note_unknown(imei(1), None);
        admission.note_unknown(imei(2), None);
        admission.install(list(&[1]), SystemTime::now());
        let left: Vec<_> = admission.unknown().newest_first().iter().map(|device| device.imei).collect();
        assert_eq!(left, [imei(2)]);
    }
}
