//! The audit: is every acknowledged record in the database, exactly once, with the values sent?
//!
//! It makes each record again from the tracker's route and compares it with the row, column by column, without the service's
//! row building. Records that were sent and not acknowledged can be in the database or not. Rows are streamed in the order of
//! the key, so memory holds the findings of one tracker, however many rows there are.

mod compare;
mod expected;
mod findings;
mod range;
mod rows;
mod run;

pub use findings::Findings;
pub use run::{AuditError, audit, settled};
