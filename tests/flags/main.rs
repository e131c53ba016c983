//! Flags: the stream, the ledger, the effect on positions, and what outages and crashes do to them.

#![expect(clippy::unwrap_used, reason = "a step that fails here is a test that fails")]

mod flags_crashes;
mod flags_directus;
mod flags_ledger;
mod flags_load;
mod flags_model;
mod flags_outages;
mod flags_privileges;
mod flags_refused;
mod flags_service;
mod flags_stream;
mod tasks;
use odograph_testkit::Odograph;

const ODOGRAPH: Odograph = Odograph::at(env!("CARGO_BIN_EXE_odograph"));
