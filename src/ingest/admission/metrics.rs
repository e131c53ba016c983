//! What admission counts. All are there with zero from the start.

use metrics::{Counter, Gauge, counter, gauge};

use crate::metrics::Registry;

/// What became of a reading of the table; also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// The list is another one.
    Changed,
    /// It is the same.
    Unchanged,
    /// The database does not answer.
    Unavailable,
    /// It refuses, or there is no such table, or it is too long.
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
