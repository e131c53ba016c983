//! `odograph serve`: runs until a signal.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::error::CommandError;
use super::setup::{lookup, runtime, settings, start_logging};
use crate::app::{self, StartError, StartOptions};
use odograph_journal::RecoveryMode;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End the alarm `journal_gap`: a part of the journal that the database lacks is gone, and you know
    #[arg(long)]
    accept_gap: bool,
    /// Go on although the journal holds receive times later than this machine's clock, which is right
    #[arg(long)]
    accept_clock: bool,
    /// What to do about damage in the journal: refuse to start, or go on without the entries that are lost
    #[arg(long, value_enum, default_value = "strict")]
    journal_recovery: Recovery,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Recovery {
    Strict,
    SkipDamage,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let lookup = lookup(arguments.config.as_ref());
    let settings = settings(&lookup)?;
    start_logging(&settings);
    for name in lookup.unknown_variables() {
        tracing::warn!(name, "this variable is no setting of this version and has no effect");
    }
    runtime()?.block_on(async {
        // Installed before anything else: a signal during the start stops in good order too.
        let mut terminate = signal(SignalKind::terminate()).map_err(|wrong| CommandError::from_error(&wrong))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|wrong| CommandError::from_error(&wrong))?;
        let accepted = StartOptions {
            accept_gap: arguments.accept_gap,
            accept_clock: arguments.accept_clock,
            recovery: match arguments.journal_recovery {
                Recovery::Strict => RecoveryMode::Strict,
                Recovery::SkipDamage => RecoveryMode::SkipDamage,
            },
        };
        let mut running = app::start(&settings, accepted).await.map_err(|wrong| match wrong {
            StartError::SchemaOutdated => CommandError::Usage(format!("odograph: {wrong}")),
            _ => CommandError::from_error(&wrong),
        })?;
        let ended = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            part = running.failed() => Err(CommandError::Failed(format!("{part} ended, which it never should; stopping"))),
        };
        running.stop().await;
        ended
    })
}
