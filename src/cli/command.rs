//! The command line: parses it, runs the command, gives the exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{check, config, decode, demo, devices, health, journal, migrate, quarantine, replay, serve, simulate};

/// GPS telemetry ingest: Teltonika trackers in, exactly-once rows in TimescaleDB out.
#[derive(Parser)]
#[command(name = "odograph", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take positions from trackers until SIGTERM or SIGINT, then stop in good order
    Serve(serve::Arguments),
    Demo(demo::Arguments),
    /// Decode logins, frames and datagrams given as hex, one JSON object each
    Decode(decode::Arguments),
    Simulate(simulate::Arguments),
    /// Create or update the tables in the database; safe to repeat
    Migrate(migrate::Arguments),
    Replay(replay::Arguments),
    /// Inspect records that could not become positions, retry them, or delete them
    Quarantine(quarantine::Arguments),
    /// Inspect the journal's files; works next to a running service
    Journal(journal::Arguments),
    /// List the devices that may log in and those that were refused, with admission = registered
    Devices(devices::Arguments),
    /// Ask a running service for its health: exit code 0 or 1
    Health(health::Arguments),
    Check(check::Arguments),
    /// Check or print the settings
    Config(config::Arguments),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match CommandLine::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Decode(arguments) => decode::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Migrate(arguments) => migrate::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Quarantine(arguments) => quarantine::run(&arguments),
        Command::Journal(arguments) => journal::run(&arguments),
        Command::Devices(arguments) => devices::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
