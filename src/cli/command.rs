//! The commands, one file each. Output goes to standard output, everything else to standard error.
//!
//! Exit codes: 0 done, 1 failed or refused, 2 wrong usage or settings.

mod check;
mod config;
mod decode;
mod demo;
mod devices;
mod fleet_database;
mod health;
mod journal;
mod json;
mod live;
mod migrate;
mod quarantine;
mod replay;
mod serve;
mod simulate;
mod when;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{LogFormat, Lookup, Mistakes, Settings};

/// GPS telemetry ingest: Teltonika trackers in, exactly-once rows in TimescaleDB out.
#[derive(Parser)]
#[command(name = "odograph", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take positions from trackers until SIGTERM or SIGINT, then stop in good order
    Serve(serve::Arguments),
    Demo(demo::Arguments),
    /// Decode logins, frames and datagrams given as hex: one JSON object an item
    Decode(decode::Arguments),
    Simulate(simulate::Arguments),
    /// Make or update the tables in the database; safe to repeat
    Migrate(migrate::Arguments),
    Replay(replay::Arguments),
    /// Look at records that could not become positions, try them again, or clear them
    Quarantine(quarantine::Arguments),
    /// Look into the journal's files, also beside a running service
    Journal(journal::Arguments),
    /// Tell which devices may log in, and which were refused, where only registered ones are admitted
    Devices(devices::Arguments),
    /// Ask a running service whether it is well: exit code 0 or 1
    Health(health::Arguments),
    Check(check::Arguments),
    /// Check or show the settings
    Config(config::Arguments),
}

/// How a command ends that does not end well. The text was not printed yet.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Settings or usage: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
    /// Everything was said already: exit code 1.
    Told,
}

impl Failure {
    /// A failure with its chain of causes.
    fn chain(wrong: &dyn std::error::Error) -> Self {
        let mut text = wrong.to_string();
        let mut cause = wrong.source();
        while let Some(wrong) = cause {
            let said = wrong.to_string();
            if !text.ends_with(&said) {
                text = format!("{text}: {said}");
            }
            cause = wrong.source();
        }
        Self::Failed(text)
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
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
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Failed(text)) => {
            eprintln!("odograph: {text}");
            ExitCode::FAILURE
        }
        Err(Failure::Usage(text)) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

/// Where settings come from: the environment over the file named by `--config` or `ODOGRAPH_CONFIG`.
fn lookup(file: Option<&PathBuf>) -> Lookup {
    let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let (mut variables, mut not_text) = (Vec::new(), Vec::new());
    for (name, value) in named {
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) => not_text.push(name),
        }
    }
    // Left out, such a variable would silently mean the default: another database, for instance.
    let ours = |name: &&String| matches!(name.as_str(), "DATABASE_URL" | "REDIS_URL") || name.starts_with("ODOGRAPH_");
    let lookup = Lookup::from_variables(variables);
    let lookup = not_text.iter().filter(ours).fold(lookup, |lookup, name| lookup.with_mistake(name, "is not UTF-8"));
    let file = file.cloned().or_else(|| std::env::var_os("ODOGRAPH_CONFIG").map(PathBuf::from));
    match file {
        None => lookup,
        Some(path) => {
            let name = path.display().to_string();
            match std::fs::read_to_string(&path) {
                Ok(text) => lookup.with_file(&name, &text),
                Err(wrong) => lookup.with_mistake(&name, format!("cannot be read: {wrong}")),
            }
        }
    }
}

fn settings(lookup: &Lookup) -> Result<Settings, Failure> {
    Settings::load(lookup).map_err(|mistakes| Failure::Usage(listed(&mistakes)))
}

fn listed(mistakes: &Mistakes) -> String {
    let count = mistakes.0.len();
    let lines: String = mistakes.to_string().lines().map(|line| format!("\n  {line}")).collect();
    format!("odograph: {count} wrong setting{}:{lines}", if count == 1 { "" } else { "s" })
}

/// Log lines on standard error.
fn start_logging(settings: &Settings) {
    let filter = tracing_subscriber::EnvFilter::new(&settings.log);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// The runtime of a command: one thread, as measurements favoured.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|wrong| Failure::chain(&wrong))
}
