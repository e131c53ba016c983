//! A faulty flag as the stores accept it: the device, the time range, and the latest change by a marshal.

use teltonika_codecs::Imei;
use uuid::Uuid;

use super::row::{MAX_TS_MS, MIN_TS_MS};

/// A device and a time range, both ends included. Equal ends name one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    imei: Imei,
    from_ms: i64,
    to_ms: i64,
}

/// Why a window is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindow {
    /// It ends before it begins.
    #[error("the range is reversed")]
    Reversed,
    /// A bound that no position can have.
    #[error("a bound is out of range")]
    OutOfRange,
}

impl Window {
    /// A device's window; bounds are device time, milliseconds since 1970-01-01 UTC.
    pub fn new(imei: Imei, from_ms: i64, to_ms: i64) -> Result<Self, InvalidWindow> {
        if !(MIN_TS_MS..=MAX_TS_MS).contains(&from_ms) || !(MIN_TS_MS..=MAX_TS_MS).contains(&to_ms) {
            return Err(InvalidWindow::OutOfRange);
        }
        if from_ms > to_ms {
            return Err(InvalidWindow::Reversed);
        }
        Ok(Self { imei, from_ms, to_ms })
    }

    /// The device.
    #[must_use]
    pub const fn imei(&self) -> Imei {
        self.imei
    }

    /// The first instant.
    #[must_use]
    pub const fn from_ms(&self) -> i64 {
        self.from_ms
    }

    /// The last instant.
    #[must_use]
    pub const fn to_ms(&self) -> i64 {
        self.to_ms
    }

    /// Whether it covers a position of that device at that time.
    #[must_use]
    pub const fn covers(&self, imei: u64, ts_ms: i64) -> bool {
        self.imei.get() == imei && self.from_ms <= ts_ms && ts_ms <= self.to_ms
    }

    /// Another range of the same device. The caller takes it from inside valid bounds.
    pub(crate) const fn with_range(self, from_ms: i64, to_ms: i64) -> Self {
        Self { from_ms, to_ms, ..self }
    }
}

/// A change of a flag. Of two changes of one flag, the one with the larger `seq` wins, in whatever order they arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagChange {
    /// The flag.
    pub flag: Uuid,
    /// Grows with each change of the flag; at least 1.
    pub seq: i64,
    /// What the flag covered before. Used only if the ledger does not know the flag.
    pub old: Option<Window>,
    /// What it is now.
    pub state: FlagState,
}

/// The state of a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagState {
    /// It exists.
    Set {
        /// What it covers.
        window: Window,
        /// Whether it declares positions faulty. A flag that does not counts as deleted.
        faulty: bool,
        /// The marshal's words, without characters that a database refuses.
        reason: Option<String>,
    },
    /// It was deleted.
    Deleted,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Applied {
    /// The ledger has it, and positions follow it.
    Applied,
    /// The ledger had this change or a later one before; nothing changed.
    Stale,
}

/// A window whose positions changed, for the corrected stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Ascending. A reader recognises repeats by it.
    pub id: i64,
    /// Device and time range.
    pub window: Window,
    /// How many positions became faulty, or are no longer faulty.
    pub positions: i64,
    /// The flag that caused it.
    pub flag: Uuid,
    /// The `seq` of the change.
    pub seq: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_includes_both_ends_and_no_other_device() {
        let imei = Imei::from_ascii(b"000000000000017").unwrap();
        let window = Window::new(imei, 10, 20).unwrap();
        assert!(window.covers(17, 10) && window.covers(17, 20) && !window.covers(17, 21) && !window.covers(18, 15));
        assert!(Window::new(imei, 10, 10).unwrap().covers(17, 10));
        assert_eq!(Window::new(imei, 11, 10), Err(InvalidWindow::Reversed));
        assert_eq!(Window::new(imei, -1, 10), Err(InvalidWindow::OutOfRange));
        assert_eq!(Window::new(imei, 0, MAX_TS_MS + 1), Err(InvalidWindow::OutOfRange));
    }
}
