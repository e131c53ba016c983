//! Readiness: which reasons hold now, and whether trackers may come.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::reason::Reason;

/// The reasons that hold now. Components set them, the admin listener reads them. Several lanes may raise the same one.
#[derive(Debug)]
pub struct Health {
    holders: [AtomicU32; Reason::ALL.len()],
    has_journal: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        let holders = [const { AtomicU32::new(0) }; Reason::ALL.len()];
        holders[Reason::Starting as usize].store(1, Ordering::Relaxed);
        Self { holders, has_journal: AtomicBool::new(true) }
    }
}

impl Health {
    /// Notes that records wait for the database in their sessions, not in a journal.
    pub fn has_no_journal(&self) {
        self.has_journal.store(false, Ordering::Relaxed);
    }

    /// Raises a reason.
    pub fn raise(&self, reason: Reason) {
        self.set(reason, 0, true);
    }

    /// Withdraws a reason.
    pub fn clear(&self, reason: Reason) {
        self.set(reason, 0, false);
    }

    /// Raises or withdraws a reason for one of several holders. It holds while any of them raises it. The log says when it
    /// begins and when it ends.
    pub fn set(&self, reason: Reason, holder: u16, holds: bool) {
        let bit = 1_u32 << (holder % 32);
        let holders = &self.holders[reason as usize];
        // Sets often repeat what is known, so read first: a read shares the cache line between the lanes.
        if (holders.load(Ordering::Relaxed) & bit != 0) == holds {
            return;
        }
        let before =
            if holds { holders.fetch_or(bit, Ordering::Relaxed) } else { holders.fetch_and(!bit, Ordering::Relaxed) };
        let after = if holds { before | bit } else { before & !bit };
        if matches!(reason, Reason::Starting | Reason::Stopping) || (before == 0) == (after == 0) {
            return;
        }
        if after == 0 {
            tracing::info!(reason = reason.as_str(), "this condition has ended");
        } else {
            tracing::warn!(
                reason = reason.as_str(),
                ready = self.is_ready(),
                "/readyz has a new reason; docs/troubleshooting.md says what to do"
            );
        }
    }

    /// Whether a reason holds.
    #[must_use]
    pub fn holds(&self, reason: Reason) -> bool {
        self.holders[reason as usize].load(Ordering::Relaxed) != 0
    }

    /// Whether trackers may come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let has_journal = self.has_journal.load(Ordering::Relaxed);
        !self.reasons().any(|reason| reason.stops_trackers(has_journal))
    }

    /// The reasons that hold, in a fixed order.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(|reason| self.holds(*reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_holds_while_any_holder_raises_it() {
        let health = Health::default();
        health.clear(Reason::Starting);
        health.set(Reason::StoreDown, 0, true);
        health.set(Reason::StoreDown, 1, true);
        health.set(Reason::StoreDown, 0, false);
        assert!(health.reasons().eq([Reason::StoreDown]));
        health.set(Reason::StoreDown, 1, false);
        assert_eq!(health.reasons().count(), 0);
    }

    #[test]
    fn a_fenced_instance_without_a_journal_takes_nothing() {
        let health = Health::default();
        assert!(!health.is_ready());
        health.clear(Reason::Starting);
        health.raise(Reason::JournalFenced);
        assert!(health.is_ready());
        health.has_no_journal();
        assert!(!health.is_ready());
    }
}
