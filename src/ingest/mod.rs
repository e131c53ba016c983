//! Ingest: from the socket of a tracker to a batch that a store commits. It knows the ports of the store, never a database.

pub mod admission;
pub mod drain;
pub mod gateway;
pub mod intake;
