//! Metrics: one struct a component, registered at start and passed in, all there with zero from the beginning.
//!
//! Labels are enums: never an IMEI, an address or an error text. Names are those of the documentation.

mod registry;
mod tally;

pub use registry::Registry;
pub use tally::{Counts, Tally};
