//! The reasons why an instance is not ready, or ready with a warning.

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
    /// Redis answers and refuses: the password, a permission, a key of another type, a replica.
    RedisRefuses,
    /// The database refuses a flag, or all flags: positions do not follow it.
    FlagsStuck,
    /// As many trackers are connected as may be: the next one waits unanswered.
    ConnectionLimit,
}

impl Reason {
    /// Every reason, in the order in which `/readyz` lists them.
    pub const ALL: [Self; 16] = [
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
        Self::RedisRefuses,
        Self::FlagsStuck,
        Self::ConnectionLimit,
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
            Self::RedisRefuses => "redis_refuses",
            Self::FlagsStuck => "flags_stuck",
            Self::ConnectionLimit => "connection_limit",
        }
    }

    /// Whether trackers must go to another instance while the reason holds: the answer of `/readyz` is 503. Everything else
    /// happens behind the journal, which takes what trackers send; a load balancer must not remove every instance for that.
    #[must_use]
    pub(super) const fn stops_trackers(self, has_journal: bool) -> bool {
        match self {
            Self::Starting | Self::Stopping | Self::JournalFull | Self::JournalPoisoned | Self::AdmissionUnknown => {
                true
            }
            // Nothing can be taken without a journal: what arrives has nowhere to wait.
            Self::JournalFenced | Self::Clock => !has_journal,
            Self::JournalGap
            | Self::SchemaOutdated
            | Self::StoreRefuses
            | Self::StoreDown
            | Self::Backlog
            | Self::RedisDown
            | Self::RedisRefuses
            | Self::FlagsStuck
            | Self::ConnectionLimit => false,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_behind_the_journal_leaves_the_trackers_here() {
        let stopping = |has_journal| {
            let stops = Reason::ALL.into_iter().filter(move |reason| reason.stops_trackers(has_journal));
            stops.map(Reason::as_str).collect::<Vec<_>>()
        };
        let always = ["starting", "stopping", "journal_full", "journal_poisoned", "admission_unknown"];
        assert_eq!(stopping(true), always);
        assert_eq!(stopping(false), [&always[..4], &["journal_fenced", "clock"], &always[4..]].concat());
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }
}
