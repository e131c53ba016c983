//! What most commands begin with: the settings, log lines on standard error, a runtime.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use super::error::CommandError;
use crate::config::{LogFormat, Lookup, Mistakes, Settings};
use crate::log_output::LogOutput;

/// Collects the settings: the environment overrides the file named by `--config` or `ODOGRAPH_CONFIG`.
pub(super) fn lookup(file: Option<&PathBuf>) -> Lookup {
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let (mut readable, mut not_utf8) = (Vec::new(), Vec::new());
    for (name, value) in variables {
        match value.into_string() {
            Ok(value) => readable.push((name, value)),
            Err(_) => not_utf8.push(name),
        }
    }
    // Ignoring such a variable would silently select the default: another database, for instance.
    let is_ours =
        |name: &&String| matches!(name.as_str(), "DATABASE_URL" | "REDIS_URL") || name.starts_with("ODOGRAPH_");
    let lookup = Lookup::from_variables(readable);
    let lookup = not_utf8.iter().filter(is_ours).fold(lookup, |lookup, name| lookup.with_mistake(name, "is not UTF-8"));
    let Some(path) = file.cloned().or_else(|| std::env::var_os("ODOGRAPH_CONFIG").map(PathBuf::from)) else {
        return lookup;
    };
    let name = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => lookup.with_file(&name, &text),
        Err(error) => lookup.with_mistake(&name, format!("cannot read this file: {error}")),
    }
}

/// Reads the settings.
///
/// # Errors
/// A usage error that lists all mistakes.
pub(super) fn settings(lookup: &Lookup) -> Result<Settings, CommandError> {
    Settings::load(lookup).map_err(|mistakes| wrong_settings(&mistakes))
}

/// The error for wrong settings: one line for each mistake.
pub(super) fn wrong_settings(mistakes: &Mistakes) -> CommandError {
    let count = mistakes.0.len();
    let lines: String = mistakes.to_string().lines().map(|line| format!("\n  {line}")).collect();
    CommandError::Usage(format!("odograph: {count} wrong setting{}:{lines}", if count == 1 { "" } else { "s" }))
}

/// Sends log lines to standard error until the returned output is dropped.
pub(super) fn start_logging(settings: &Settings) -> LogOutput {
    let filter = EnvFilter::new(&settings.log);
    let (writer, output) = LogOutput::start();
    // The subscriber would report its own failure on standard error, and panic if that fails.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    match settings.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    output
}

/// Keeps the files that this process makes from other users of the machine: they hold positions and IMEIs.
pub(super) fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// The runtime of a command. It has one thread: measured to be the fastest.
pub(super) fn runtime() -> Result<Runtime, CommandError> {
    Builder::new_current_thread().enable_all().build().map_err(|e| CommandError::from_error(&e))
}
