//! A disk that does everything to what was not synced that a real one may do, and some things that none should.
//!
//! Seeded, so a schedule repeats itself. Power goes off at a chosen operation or on command; what the disk holds after that is
//! drawn: of each sector that was written and not synced the old content, the new one, or a mix; of names that were changed and not
//! synced some first part. What was synced stays, unless [`FaultyDisk::flip`] is asked to break the rule.

mod content;
mod disk;
mod file;
mod storage;

pub use disk::{Faults, FaultyDisk, Operations};
