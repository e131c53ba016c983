//! What the operator accepts by name at a start.

use odograph_journal::RecoveryMode;

/// Options of `serve` that hold for this start only.
#[derive(Clone, Copy, Debug)]
pub struct StartOptions {
    /// Accept that a part of the journal is gone which the database lacks.
    pub accept_gap: bool,
    /// Trust this machine's clock, although the journal holds later receive times.
    pub accept_clock: bool,
    /// What to do about damage in the journal.
    pub recovery: RecoveryMode,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self { accept_gap: false, accept_clock: false, recovery: RecoveryMode::Strict }
    }
}
