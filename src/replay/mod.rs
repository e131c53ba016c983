//! Decodes again what the journal still holds, next to a running `serve`, so that the tables show what this program and these
//! settings make of the same bytes. It only reads the journal's files, and writes in small transactions like any other writer.
//!
//! It decodes only what the lanes have committed; the rest is theirs. If it ends at any moment, whole transactions are done,
//! and the next run finds them unchanged.
//!
//! - `request`: what is asked for, and the report. `run` does it; `committed_lanes` says which entries are committed.
//! - `decoder`: frames to rows, without a drain.
//! - `retry`: the same for the records of the quarantine, whose bytes are in the database.

mod committed_lanes;
mod decoder;
mod request;
mod retry;
mod run;

pub use decoder::{Decoder, RefusedRecords, alone};
pub use request::{ReplayError, ReplayMode, ReplayReport, ReplayRequest};
pub use retry::{RetryReport, retry};
pub use run::run;
