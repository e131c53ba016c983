//! What a store holds and reports: rows, batches, checkpoints, flags, and the types of the operator's tools. Knows no
//! database.

pub(crate) mod batch;
pub(crate) mod column_set;
pub(crate) mod columns;
pub(crate) mod committed;
pub(crate) mod devices;
pub(crate) mod digest;
pub(crate) mod features;
pub(crate) mod fence;
pub(crate) mod flag;
pub(crate) mod migration;
pub(crate) mod quarantine;
pub(crate) mod quarantine_query;
pub(crate) mod retention;
pub(crate) mod retention_clock;
pub(crate) mod rewrite;
pub(crate) mod row;
pub(crate) mod rows;
pub(crate) mod unapplied;
