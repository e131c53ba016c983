//! Metrics of admission. All exist with zero from the start.

use metrics::{Counter, Gauge, counter, gauge};

use crate::metrics::Registry;

/// The result of reading the table; also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// The list changed.
    Changed,
    /// The list is the same.
    Unchanged,
    /// The database did not answer.
    Unavailable,
    /// The database refused, the table is missing, or it is too long.
    Refused,
}

impl Reload {
    const ALL: [Self; 4] = [Self::Changed, Self::Unchanged, Self::Unavailable, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

/// Metrics of the list of devices.
#[derive(Clone)]
pub struct AdmissionMetrics {
    pub(super) devices: Gauge,
    pub(super) ignored: Gauge,
    pub(super) age: Gauge,
    reloads: [Counter; Reload::ALL.len()],
    pub(super) file_failures: Counter,
}

impl AdmissionMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.register(|| Self {
            devices: gauge!("odograph_admission_devices"),
            ignored: gauge!("odograph_admission_ignored_rows"),
            age: gauge!("odograph_admission_list_age_seconds"),
            reloads: Reload::ALL.map(|r| counter!("odograph_admission_reloads_total", "result" => r.as_str())),
            file_failures: counter!("odograph_admission_file_failures_total"),
        })
    }

    pub(super) fn reload(&self, result: Reload) {
        self.reloads[result as usize].increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_declaration_order() {
        assert!(Reload::ALL.iter().enumerate().all(|(at, result)| *result as usize == at));
    }
}
