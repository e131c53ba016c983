//! What faulty flags mean for positions, whatever the database.

pub(crate) mod cache;
pub(crate) mod intervals;
pub(crate) mod ledger;
