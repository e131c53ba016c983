//! Settings: a TOML file, overridden by the environment, over defaults. All mistakes are reported at once.
//!
//! `keys` is the table of all settings, `lookup` finds their texts, `value` parses them, `settings` holds the result.

pub mod keys;
mod lookup;
mod settings;
mod value;

pub use lookup::{Lookup, Mistake, Mistakes, Source};
pub use settings::{AckAfter, AdmissionMode, LogFormat, Settings};
