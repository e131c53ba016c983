//! What faulty flags mean for positions, in every database.

pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod changes;
pub(crate) mod flag_ledger;
pub(crate) mod intervals;
pub(crate) mod latest;
pub(crate) mod script;
