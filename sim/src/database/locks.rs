//! The locks of a server: shared or exclusive, for a transaction or for a session. A session that would wait in a
//! circle is a victim.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use uuid::Uuid;

use super::tables::Place;
use odograph::store::Key;

/// What can be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lock {
    /// The table of positions, by sessions that insert.
    Table,
    /// A lane of a journal, by a session.
    Lane(Place),
    /// A row of checkpoints.
    Fence(Place),
    /// A row of positions: also one that is being inserted.
    Row(Key),
    /// A row of latest positions.
    Latest(u64),
    /// The ledger of flags.
    Ledger,
    /// The flags of a device.
    Device(u64),
    /// A row of the ledger.
    Flag(Uuid),
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Alone,
}

/// How long a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    EndOfTransaction,
    EndOfSession,
}

#[derive(Debug, Default)]
pub(super) struct Locks {
    held: BTreeMap<Lock, Vec<(u64, Mode, Until)>>,
    waiting: BTreeMap<u64, (Lock, Waker)>,
}

impl Locks {
    /// Takes a lock, unless a lock of another session conflicts with it. Returns whether the session holds it now.
    pub(super) fn take(&mut self, backend: u64, lock: Lock, mode: Mode, until: Until) -> bool {
        let holders = self.held.entry(lock).or_default();
        let in_the_way =
            |(other, held, _): &(u64, Mode, Until)| *other != backend && (mode == Mode::Alone || *held == Mode::Alone);
        if holders.iter().any(in_the_way) {
            return false;
        }
        if !holders.iter().any(|(other, held, _)| *other == backend && (*held == mode || *held == Mode::Alone)) {
            holders.push((backend, mode, until));
        }
        true
    }

    /// Waits for a lock. Returns false if the wait would never end.
    pub(super) fn wait(&mut self, backend: u64, lock: Lock, waker: Waker) -> bool {
        self.waiting.insert(backend, (lock, waker));
        let (mut met, mut next) = (BTreeSet::new(), vec![lock]);
        while let Some(lock) = next.pop() {
            for (holder, ..) in self.held.get(&lock).into_iter().flatten().filter(|(holder, ..)| met.insert(*holder)) {
                if *holder == backend && lock != self.waiting[&backend].0 {
                    self.waiting.remove(&backend);
                    return false;
                }
                next.extend(self.waiting.get(holder).map(|(lock, _)| *lock));
            }
        }
        true
    }

    pub(super) fn stop_waiting(&mut self, backend: u64) {
        self.waiting.remove(&backend);
    }

    /// Releases the locks of a transaction, or all locks of its session, and wakes sessions that wait for them.
    pub(super) fn release(&mut self, backend: u64, until: Until) {
        let mut freed = Vec::new();
        self.held.retain(|lock, holders| {
            let before = holders.len();
            holders.retain(|(holder, _, held)| {
                *holder != backend || until == Until::EndOfTransaction && *held == Until::EndOfSession
            });
            if holders.len() < before {
                freed.push(*lock);
            }
            !holders.is_empty()
        });
        for (lock, waker) in self.waiting.values() {
            if freed.contains(lock) {
                waker.wake_by_ref();
            }
        }
    }

    pub(super) fn holds(&self, backend: u64, lock: Lock) -> bool {
        self.held.get(&lock).into_iter().flatten().any(|(holder, ..)| *holder == backend)
    }

    /// Whether any session holds the lock.
    pub(super) fn is_held(&self, lock: Lock) -> bool {
        self.held.contains_key(&lock)
    }

    /// Whether a session waits for a lock of this one.
    pub(super) fn is_in_the_way(&self, backend: u64) -> bool {
        let holds = |lock: &Lock| self.held.get(lock).into_iter().flatten().any(|(holder, ..)| *holder == backend);
        self.waiting.values().any(|(lock, _)| holds(lock))
    }
}
