//! Readiness: the set of reasons why this instance is not, or not wholly, in order.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::store::ErrorClass;

/// Why readiness has something to say. Names are those of `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Listeners are not up yet.
    Starting,
    /// Shutting down.
    Stopping,
    /// The database lacks migrations.
    SchemaOutdated,
    /// The database answers and refuses: permission, password, schema, read-only.
    StoreRefuses,
    /// The database does not answer. Trackers keep their records; the balancer must not pull every gateway for it.
    StoreDown,
    /// Redis does not answer: flags come by reconciliation, and corrections wait.
    RedisDown,
}

impl Reason {
    /// Every reason, in the order in which `/readyz` lists them.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Stopping, Self::SchemaOutdated, Self::StoreRefuses, Self::StoreDown, Self::RedisDown];

    /// The name in `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::SchemaOutdated => "schema_outdated",
            Self::StoreRefuses => "store_refuses",
            Self::StoreDown => "store_down",
            Self::RedisDown => "redis_down",
        }
    }

    /// Whether the reason alone takes the instance out of the balancer.
    #[must_use]
    pub const fn unready(self) -> bool {
        match self {
            Self::Starting | Self::Stopping | Self::SchemaOutdated | Self::StoreRefuses => true,
            Self::StoreDown | Self::RedisDown => false,
        }
    }

    /// What a failed store operation means for readiness.
    #[must_use]
    pub const fn of(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Unavailable => Self::StoreDown,
            ErrorClass::Refuses => Self::StoreRefuses,
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The reasons that hold now. Set by whoever knows, read by the admin listener.
#[derive(Debug)]
pub struct Health(AtomicU32);

impl Default for Health {
    fn default() -> Self {
        Self(AtomicU32::new(Reason::Starting.bit()))
    }
}

impl Health {
    /// Raises a reason.
    pub fn raise(&self, reason: Reason) {
        self.0.fetch_or(reason.bit(), Ordering::Relaxed);
    }

    /// Withdraws a reason.
    pub fn clear(&self, reason: Reason) {
        self.0.fetch_and(!reason.bit(), Ordering::Relaxed);
    }

    /// The reasons that hold, in a fixed order.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        let held = self.0.load(Ordering::Relaxed);
        Reason::ALL.into_iter().filter(move |reason| held & reason.bit() != 0)
    }
}
