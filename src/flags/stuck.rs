//! Changes of flags that the database refuses although it takes others. They are set aside, so that the others go on, and
//! tried again with each reconciliation. Readiness says `flags_stuck` as long as there are any.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Gauge;
use tokio::time::Instant;
use uuid::Uuid;

use crate::health::{Health, Reason};

/// The changes that are set aside.
pub(super) struct StuckFlags {
    flags: Mutex<HashMap<Uuid, StuckFlag>>,
    health: Arc<Health>,
    gauge: Gauge,
}

struct StuckFlag {
    /// The change. A later one of the same flag is tried at once.
    seq: i64,
    /// When the database refused it last.
    refused_at: Instant,
}

impl StuckFlags {
    pub(super) fn new(health: Arc<Health>, gauge: Gauge) -> Self {
        Self { flags: Mutex::default(), health, gauge }
    }

    /// Sets a change aside. `detail` is what the database answered, without the row: the SQLSTATE and a constraint. Returns
    /// false if too many are set aside already: the change has to wait.
    pub(super) fn set_aside(&self, flag: Uuid, seq: i64, detail: &str) -> bool {
        let mut flags = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        if flags.len() >= MAX_STUCK && !flags.contains_key(&flag) {
            return false;
        }
        let before = flags.insert(flag, StuckFlag { seq, refused_at: Instant::now() });
        if before.is_none_or(|before| before.seq != seq) {
            tracing::error!(
                %flag, seq, refused = detail,
                "the database refuses this flag: positions do not follow it. It is tried again with each reconciliation"
            );
        }
        self.publish(&flags);
        true
    }

    /// Forgets what was not refused again since `begin`: the database took it meanwhile, or nobody wants it any more.
    pub(super) fn retain_since(&self, begin: Instant) {
        let mut flags = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        flags.retain(|_, stuck| stuck.refused_at >= begin);
        self.publish(&flags);
    }

    fn publish(&self, flags: &HashMap<Uuid, StuckFlag>) {
        self.health.set(Reason::FlagsStuck, SET_ASIDE, !flags.is_empty());
        self.gauge.set(f64::from(u32::try_from(flags.len()).unwrap_or(u32::MAX)));
    }
}

/// The holder of `flags_stuck` for changes that are set aside.
const SET_ASIDE: u16 = 0;
/// If more are refused, something else is wrong, and the stream is a better place to wait.
const MAX_STUCK: usize = 1_000;
