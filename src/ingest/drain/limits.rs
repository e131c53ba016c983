//! How batches are made.

use std::time::Duration;

use super::builder::TimeWindow;
use super::duplicates::FilterSizes;

/// Limits of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Maximum rows in a batch. The frame that reaches it is still taken whole.
    pub rows: usize,
    /// How long the first frame of a batch waits for others.
    pub linger: Duration,
    /// Device times that are plausible.
    pub window: TimeWindow,
    /// How many records the duplicate filter remembers.
    pub filter: FilterSizes,
}
