//! The commands, one file each. Output goes to standard output, everything else to standard error.
//!
//! - `command` parses the command line, runs the command and gives the exit code: 0 done, 1 failed or refused, 2 wrong usage
//!   or settings.
//! - `setup` holds what most commands begin with: settings, logging, a runtime. `error` says how a command fails.
//! - `live` and `time_argument` are shared by commands: a progress line, and times as people write them. `note` prints
//!   what is not output.

#[macro_use]
mod note;

mod check;
mod command;
mod config;
mod decode;
mod demo;
mod devices;
mod error;
mod fleet_database;
mod health;
mod journal;
mod json;
mod live;
mod migrate;
mod quarantine;
mod replay;
mod serve;
mod setup;
mod simulate;
mod time_argument;

pub use command::main;
