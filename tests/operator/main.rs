//! The commands and files of an operator: check, quarantine, replay, retention, backup, journal, simulate, audit.

#![expect(clippy::unwrap_used, reason = "a step that fails here is a test that fails")]

mod audit;
mod backup;
mod check;
mod check_broken;
mod check_report;
mod commands;
mod journal_commands;
mod quarantine;
mod quarantine_cap;
mod quarantine_commands;
mod replay;
mod replay_outages;
mod replay_setup;
mod retention;
mod roles;
mod simulate;
use odograph_testkit::Odograph;

const ODOGRAPH: Odograph = Odograph::at(env!("CARGO_BIN_EXE_odograph"));
