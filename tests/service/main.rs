//! The service as trackers and operators meet it: sessions, acknowledgement, admission, outages, the journal, health.

#![expect(clippy::unwrap_used, reason = "a step that fails here is a test that fails")]

mod acknowledgement;
mod admission;
mod admission_outages;
mod admission_setup;
mod drain;
mod health;
mod host_clock;
mod journal_doubts;
mod journal_service;
mod log_output;
mod operations;
mod outages;
mod sessions;
mod vendor_examples;
use odograph_testkit::Odograph;

const ODOGRAPH: Odograph = Odograph::at(env!("CARGO_BIN_EXE_odograph"));
