//! `odograph serve`: runs the service until a signal.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::error::CommandError;
use super::setup::{keep_files_private, lookup, runtime, settings, start_logging};
use crate::app::{self, StartError, StartOptions};
use odograph_journal::RecoveryMode;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Clear the alarm `journal_gap`: you accept that a part of the journal which the database lacks is lost
    #[arg(long)]
    accept_gap: bool,
    /// Trust this machine's clock, although the journal holds later receive times
    #[arg(long)]
    accept_clock: bool,
    /// What to do about damage in the journal: refuse to start, or continue without the lost entries
    #[arg(long, value_enum, default_value = "strict")]
    journal_recovery: RecoveryArgument,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RecoveryArgument {
    Strict,
    SkipDamage,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let lookup = lookup(arguments.config.as_ref());
    let settings = settings(&lookup)?;
    keep_files_private();
    let log = start_logging(&settings);
    for name in lookup.unknown_variables() {
        tracing::warn!(name, "this variable is not a setting of this version and has no effect");
    }
    runtime()?.block_on(async {
        // Installed first, so that a signal during the start also stops in good order.
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| CommandError::from_error(&e))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| CommandError::from_error(&e))?;
        let accepted = StartOptions {
            accept_gap: arguments.accept_gap,
            accept_clock: arguments.accept_clock,
            recovery: match arguments.journal_recovery {
                RecoveryArgument::Strict => RecoveryMode::Strict,
                RecoveryArgument::SkipDamage => RecoveryMode::SkipDamage,
            },
        };
        let mut service = app::start(&settings, accepted).await.map_err(|e| match e {
            StartError::SchemaOutdated => CommandError::Usage(format!("odograph: {e}")),
            _ => CommandError::from_error(&e),
        })?;
        log.losses().publish(&service.registry);
        let outcome = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            part = service.failed() => Err(CommandError::Failed(format!("{part} ended unexpectedly; stopping"))),
        };
        service.stop().await;
        outcome
    })
}
