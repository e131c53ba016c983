//! The settings themselves.

use super::finding::{Check, Finding};
use crate::config::{Lookup, Mistakes};

/// What is wrong with the settings, where nothing else can be asked.
#[must_use]
pub fn of_mistakes(mistakes: &Mistakes) -> Finding {
    let listed: Vec<_> = mistakes.0.iter().map(|mistake| format!("{}: {}", mistake.setting, mistake.what)).collect();
    let remedy = "correct them: docs/settings.md has ranges and units. Nothing else was looked at";
    Check::Settings.wrong(listed.join("; "), remedy)
}

/// Whether variables are set that have no effect.
pub(super) fn of_settings(lookup: &Lookup) -> Finding {
    let unknown: Vec<_> = lookup.unknown_variables().collect();
    if unknown.is_empty() {
        return Check::Settings.ok("right");
    }
    Check::Settings.note(
        format!("right, but {} {} no effect", unknown.join(", "), if unknown.len() == 1 { "has" } else { "have" }),
        "mistyped, or of another version: `odograph config show` prints what is in effect",
    )
}
