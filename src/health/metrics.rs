//! Readiness as metrics, for alerts that do not read `/readyz`.

use std::sync::Arc;

use metrics::gauge;

use super::conditions::Health;
use super::reason::Reason;
use crate::metrics::Registry;

/// Registers `odograph_ready` and `odograph_condition{reason}` (1 while the reason holds), which follow `health`.
pub fn publish(registry: &Registry, health: &Arc<Health>) {
    let (ready, conditions) = registry.register(|| {
        let condition = |reason: Reason| gauge!("odograph_condition", "reason" => reason.as_str());
        (gauge!("odograph_ready"), Reason::ALL.map(condition))
    });
    let health = Arc::clone(health);
    registry.before_each_answer(move || {
        ready.set(as_gauge(health.is_ready()));
        for (reason, condition) in Reason::ALL.into_iter().zip(&conditions) {
            condition.set(as_gauge(health.holds(reason)));
        }
    });
}

fn as_gauge(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}
