//! Cuts windows into intervals that live flags cover or not. Pure, and the one definition of "covered".

use std::collections::BTreeSet;

use crate::store::model::flag::Window;

/// A part of a window, and whether its positions are faulty. Intervals never overlap, so no row is marked twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagInterval {
    /// Device and time range.
    pub window: Window,
    /// Whether a live flag covers it.
    pub faulty: bool,
}

/// Merges windows that overlap or touch. Returns them in order.
pub(crate) fn merged(windows: impl IntoIterator<Item = Window>) -> Vec<Window> {
    let mut sorted: Vec<_> = windows.into_iter().collect();
    sorted.sort_unstable();
    let mut merged: Vec<Window> = Vec::with_capacity(sorted.len());
    for window in sorted {
        match merged.last_mut() {
            Some(last) if last.imei() == window.imei() && window.from_ms() <= last.to_ms().saturating_add(1) => {
                *last = last.with_range(last.from_ms(), last.to_ms().max(window.to_ms()));
            }
            _ => merged.push(window),
        }
    }
    merged
}

/// Cuts windows at the begin and end of flags. Both come from [`merged`].
pub(crate) fn intervals(windows: &[Window], flags: &[Window]) -> Vec<FlagInterval> {
    let mut intervals = Vec::with_capacity(windows.len());
    for window in windows {
        let mut next = window.from_ms();
        // The first flag that can reach into the window: they are in order and do not overlap.
        let first = flags.partition_point(|flag| (flag.imei(), flag.to_ms()) < (window.imei(), window.from_ms()));
        for flag in flags.iter().skip(first) {
            if flag.imei() != window.imei() || flag.from_ms() > window.to_ms() {
                break;
            }
            let (from, to) = (flag.from_ms().max(next), flag.to_ms().min(window.to_ms()));
            if next < from {
                intervals.push(FlagInterval { window: window.with_range(next, from - 1), faulty: false });
            }
            intervals.push(FlagInterval { window: window.with_range(from, to), faulty: true });
            next = to.saturating_add(1);
        }
        if next <= window.to_ms() {
            intervals.push(FlagInterval { window: window.with_range(next, window.to_ms()), faulty: false });
        }
    }
    intervals
}

/// Counts positions whose mark changed by interval, for sums by window.
#[derive(Debug)]
pub(crate) struct MarkCount {
    /// In order.
    intervals: Vec<(FlagInterval, i64)>,
}

impl MarkCount {
    /// Cuts the intervals, which come from [`intervals`], also at the begin and end of the windows whose sums are
    /// needed.
    pub(crate) fn new(intervals: Vec<FlagInterval>, windows: impl IntoIterator<Item = Window>) -> Self {
        let mut cuts = BTreeSet::new();
        for window in windows {
            cuts.insert((window.imei(), window.from_ms()));
            cuts.insert((window.imei(), window.to_ms().saturating_add(1)));
        }
        let mut cut = Vec::with_capacity(intervals.len());
        for FlagInterval { window, faulty } in intervals {
            let mut next = window.from_ms();
            let (first, end) = ((window.imei(), next.saturating_add(1)), (window.imei(), window.to_ms()));
            if first <= end {
                for (_, at) in cuts.range(first..=end) {
                    cut.push((FlagInterval { window: window.with_range(next, at - 1), faulty }, 0));
                    next = *at;
                }
            }
            cut.push((FlagInterval { window: window.with_range(next, window.to_ms()), faulty }, 0));
        }
        Self { intervals: cut }
    }

    /// Returns the intervals, cut.
    pub(crate) fn intervals(&self) -> Vec<FlagInterval> {
        self.intervals.iter().map(|(interval, _)| *interval).collect()
    }

    /// Counts a position that changed.
    pub(crate) fn count(&mut self, imei: u64, ts_ms: i64) {
        let at = self
            .intervals
            .partition_point(|(interval, _)| (interval.window.imei().get(), interval.window.to_ms()) < (imei, ts_ms));
        if let Some((interval, changed)) = self.intervals.get_mut(at)
            && interval.window.covers(imei, ts_ms)
        {
            *changed += 1;
        }
    }

    /// Adds positions that changed in an interval, which is one of [`MarkCount::intervals`].
    pub(crate) fn add(&mut self, interval: &FlagInterval, positions: i64) {
        let key = (interval.window.imei(), interval.window.from_ms());
        let at =
            self.intervals.partition_point(|(interval, _)| (interval.window.imei(), interval.window.from_ms()) < key);
        if let Some((_, changed)) = self.intervals.get_mut(at) {
            *changed += positions;
        }
    }

    /// Returns the number of positions that changed in one of the windows.
    pub(crate) fn changed_in(&self, window: &Window) -> i64 {
        let key = (window.imei(), window.from_ms());
        let first =
            self.intervals.partition_point(|(interval, _)| (interval.window.imei(), interval.window.from_ms()) < key);
        let inside = self.intervals.iter().skip(first);
        let inside = inside.take_while(|(interval, _)| {
            interval.window.imei() == window.imei() && interval.window.to_ms() <= window.to_ms()
        });
        inside.map(|(_, changed)| changed).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use teltonika_codecs::Imei;

    use super::*;

    fn window(device: u8, from: i64, length: i64) -> Window {
        let digits = format!("{device:015}");
        Window::new(Imei::from_ascii(digits.as_bytes()).unwrap(), from, from + length).unwrap()
    }

    fn windows() -> impl Strategy<Value = Vec<Window>> {
        prop::collection::vec(
            (0_u8..3, 0_i64..40, 0_i64..12).prop_map(|(d, from, length)| window(d, from, length)),
            0..8,
        )
    }

    proptest! {
        #[test]
        fn every_instant_of_the_windows_is_in_one_interval_and_is_faulty_if_a_flag_covers_it(
            asked in windows(), flags in windows(),
        ) {
            let found_in = intervals(&merged(asked.clone()), &merged(flags.clone()));
            for device in 0..3_u64 {
                for ts in 0..60 {
                    let found: Vec<_> = found_in.iter().filter(|interval| interval.window.covers(device, ts)).collect();
                    prop_assert_eq!(found.len(), usize::from(asked.iter().any(|window| window.covers(device, ts))));
                    if let Some(interval) = found.first() {
                        prop_assert_eq!(interval.faulty, flags.iter().any(|flag| flag.covers(device, ts)));
                    }
                }
            }
        }

        #[test]
        fn each_window_gets_the_count_of_what_changed_in_it(
            asked in windows(), flags in windows(), changed in prop::collection::vec((0_u64..3, 0_i64..60), 0..30),
        ) {
            let whole = merged(asked.clone());
            let mut count = MarkCount::new(intervals(&whole, &merged(flags)), asked.clone());
            for (imei, ts) in &changed {
                count.count(*imei, *ts);
            }
            for window in asked.iter().chain(&whole) {
                let expected = changed.iter().filter(|(imei, ts)| window.covers(*imei, *ts)).count();
                prop_assert_eq!(count.changed_in(window), i64::try_from(expected).unwrap());
            }
        }
    }
}
