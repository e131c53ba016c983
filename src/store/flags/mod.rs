//! Faulty flags: their ledger, and how positions follow it. The same rules for every database.

pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod changes;
pub(crate) mod flag_ledger;
pub(crate) mod intervals;
pub(crate) mod latest;
pub(crate) mod script;
