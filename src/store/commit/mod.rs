//! How a batch is committed: the same script for every database that has sessions.

pub(crate) mod bisect;
pub(crate) mod lane_writer;
pub(crate) mod quarantine_input;
pub(crate) mod script;
pub(crate) mod write_strategy;
