//! Readiness: the reasons why this instance is not ready, or ready with a warning.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::store::ErrorClass;

/// A reason that `/readyz` lists. Names are those of `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Listeners are not up yet.
    Starting,
    /// Shutting down.
    Stopping,
    /// The journal is full: nothing is accepted until the database commits waiting frames.
    JournalFull,
    /// A write or a sync of the journal failed. The process is about to end.
    JournalPoisoned,
    /// A part of the journal that the database lacks is lost. Holds until the operator accepts it.
    JournalGap,
    /// Another process writes with this journal's id, or holds its lane in the database.
    JournalFenced,
    /// This machine's clock cannot be right. Nothing is written to the database, because receive times decide about records.
    Clock,
    /// The database lacks migrations.
    SchemaOutdated,
    /// The database answers but refuses: permission, password, schema, read-only.
    StoreRefuses,
    /// Only registered devices are admitted, but the list was never read: no device is admitted.
    AdmissionUnknown,
    /// The database does not answer. A load balancer must not remove every gateway for that.
    StoreDown,
    /// Frames in the journal wait long for the database.
    Backlog,
    /// Redis does not answer: only reconciliation finds flags, and corrections wait.
    RedisDown,
}

impl Reason {
    /// Every reason, in the order in which `/readyz` lists them.
    pub const ALL: [Self; 13] = [
        Self::Starting,
        Self::Stopping,
        Self::JournalFull,
        Self::JournalPoisoned,
        Self::JournalGap,
        Self::JournalFenced,
        Self::Clock,
        Self::SchemaOutdated,
        Self::StoreRefuses,
        Self::AdmissionUnknown,
        Self::StoreDown,
        Self::Backlog,
        Self::RedisDown,
    ];

    /// The name in `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::JournalFull => "journal_full",
            Self::JournalPoisoned => "journal_poisoned",
            Self::JournalGap => "journal_gap",
            Self::JournalFenced => "journal_fenced",
            Self::Clock => "clock",
            Self::SchemaOutdated => "schema_outdated",
            Self::StoreRefuses => "store_refuses",
            Self::AdmissionUnknown => "admission_unknown",
            Self::StoreDown => "store_down",
            Self::Backlog => "backlog",
            Self::RedisDown => "redis_down",
        }
    }

    /// Whether the reason alone makes the instance not ready.
    #[must_use]
    pub const fn unready(self) -> bool {
        !matches!(self, Self::StoreDown | Self::Backlog | Self::RedisDown)
    }

    /// The reason that a failed store operation raises.
    #[must_use]
    pub const fn of(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Unavailable => Self::StoreDown,
            ErrorClass::Refuses => Self::StoreRefuses,
        }
    }
}

/// The reasons that hold now. Components set them, the admin listener reads them. Several lanes may raise the same one.
#[derive(Debug)]
pub struct Health([AtomicU32; Reason::ALL.len()]);

impl Default for Health {
    fn default() -> Self {
        let health = Self([const { AtomicU32::new(0) }; Reason::ALL.len()]);
        health.raise(Reason::Starting);
        health
    }
}

impl Health {
    /// Raises a reason.
    pub fn raise(&self, reason: Reason) {
        self.set(reason, 0, true);
    }

    /// Withdraws a reason.
    pub fn clear(&self, reason: Reason) {
        self.set(reason, 0, false);
    }

    /// Raises or withdraws a reason for one of several holders. It holds while any of them raises it.
    pub fn set(&self, reason: Reason, holder: u16, holds: bool) {
        let bit = 1_u32 << (holder % 32);
        if holds {
            self.0[reason as usize].fetch_or(bit, Ordering::Relaxed);
        } else {
            self.0[reason as usize].fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Whether a reason holds.
    #[must_use]
    pub fn holds(&self, reason: Reason) -> bool {
        self.0[reason as usize].load(Ordering::Relaxed) != 0
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
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }
}
