//! Readiness: the reasons why this instance is not ready, or ready with a warning, in `/readyz`, the metrics and the log.

mod conditions;
mod metrics;
mod reason;

pub use conditions::Health;
pub use metrics::publish;
pub use reason::Reason;
