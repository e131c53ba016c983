//! How a batch is committed, whatever the database.

pub(crate) mod quarantine_input;
pub(crate) mod write_strategy;
