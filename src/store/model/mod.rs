//! What a store holds: rows, batches, checkpoints and flags.

pub(crate) mod batch;
pub(crate) mod column_set;
pub(crate) mod columns;
pub(crate) mod committed;
pub(crate) mod fence;
pub(crate) mod flag;
pub(crate) mod retention_clock;
pub(crate) mod row;
pub(crate) mod rows;
pub(crate) mod unapplied;
