//! The commit of a batch: one script for every database that implements the port.

pub(crate) mod bisect;
pub(crate) mod lane_writer;
pub(crate) mod quarantine;
pub(crate) mod quarantine_input;
pub(crate) mod reduce;
pub(crate) mod script;
pub(crate) mod write_strategy;
