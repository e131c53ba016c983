//! Wiring: starts and stops the service. Nothing refers back to it.
//!
//! - `start` tells the start as a story, top to bottom; `stop` does the same for the stop.
//! - `configs` gives each component its own configuration, taken from the settings.
//! - `pipeline` connects the intake with the database: the journal, if there is one, and the lanes.
//! - `sockets` opens the listeners and raises the file limit. `database` inspects the database before anything is accepted.

mod configs;
mod database;
mod error;
mod options;
mod pipeline;
mod service;
mod sockets;
mod start;
mod stop;

pub use error::{JournalError, StartError};
pub use options::StartOptions;
pub use service::Service;
pub use start::start;
