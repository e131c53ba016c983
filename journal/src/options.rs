//! How a journal is opened.

use super::limits::Limits;

/// How a journal is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Its limits.
    pub limits: Limits,
    /// What to do about damage.
    pub recovery: RecoveryMode,
}

/// What to do about durable entries that are missing or damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Refuse to open.
    #[default]
    Strict,
    /// Continue without them, and count them.
    SkipDamage,
}
