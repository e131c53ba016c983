//! Clocks of trackers: most are right, a few are not.

/// How many trackers have a wrong clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clocks {
    /// None.
    Right,
    /// A few: half an hour ahead, two hours behind, 200 days behind. A service's default time window takes them all.
    #[default]
    FewWrong,
    /// A few, and some of them start in 2004, like devices that lost power and have no fix yet (section 2.5). Their records
    /// go into quarantine.
    SomeStray,
}

impl Clocks {
    /// How far the clock of a tracker is ahead of `now_ms`.
    pub(super) fn offset_ms(self, number: u32, now_ms: u64) -> i64 {
        let offset = match number % 50 {
            13 => 30 * MINUTE,
            31 => -120 * MINUTE,
            46 => -200 * 24 * 60 * MINUTE,
            _ => 0,
        };
        match self {
            Self::Right => 0,
            Self::SomeStray if number % 50 == 7 => LOST_POWER_MS.saturating_sub_unsigned(now_ms),
            Self::FewWrong | Self::SomeStray => offset,
        }
    }

    /// How far ahead a clock can be.
    pub const MAX_AHEAD_MS: u64 = 30 * MINUTE.unsigned_abs();
    /// How far behind a clock can be whose records a service still accepts.
    pub const MAX_BEHIND_MS: u64 = 200 * 24 * 60 * MINUTE.unsigned_abs();
}

const MINUTE: i64 = 60_000;
/// 2004-01-01T00:00:00Z.
const LOST_POWER_MS: i64 = 1_072_915_200_000;
