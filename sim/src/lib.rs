//! A simulated world around the service's own code: see `docs/simulation.md`.

#![allow(clippy::unwrap_used, reason = "a simulation fails by panicking")]

mod acts;
mod clock;
pub mod database;
mod executor;
mod faults;
mod flags;
mod mutants;
mod network;
mod oracle;
mod orders;
mod plan;
mod process;
mod rest;
mod schedule;
mod sent;
mod trace;
mod tracker;
mod watched_store;
mod world;

pub use orders::{WrongOrder, wrong_orders};
pub use plan::Mutant;
pub use schedule::{ScheduleOutcome, run};
