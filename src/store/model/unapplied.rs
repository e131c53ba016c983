//! Flags that are recorded in the ledger and that positions do not follow yet.

use std::collections::HashMap;

use uuid::Uuid;

use super::flag::Window;

/// The unapplied ones among some flags.
#[derive(Clone, Debug, Default)]
pub struct UnappliedFlags {
    /// Each flag with its newest change.
    pub seqs: HashMap<Uuid, i64>,
    /// Every window whose positions have to follow.
    pub windows: Vec<FlagWindow>,
}

/// A window that a flag covers, or covered before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagWindow {
    /// The flag.
    pub flag: Uuid,
    /// The flag's newest change.
    pub seq: i64,
    /// The change that replaced the window, if one did.
    pub replaced_by: Option<i64>,
    /// Device and time range.
    pub window: Window,
}
