//! `odograph config`: reports every mistake in one run, or prints the effective settings with secrets masked.

use std::path::PathBuf;

use super::error::CommandError;
use super::setup::{lookup, settings};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(clap::Subcommand)]
enum ConfigCommand {
    /// Report every mistake; exit code 2 if there is one
    Check {
        /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the effective settings and where each comes from
    Show {
        /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let (ConfigCommand::Check { config } | ConfigCommand::Show { config }) = &arguments.command;
    let lookup = lookup(config.as_ref());
    let settings = settings(&lookup)?;
    for name in lookup.unknown_variables() {
        note!("odograph: {name} is not a setting of this version and has no effect");
    }
    match arguments.command {
        ConfigCommand::Check { .. } => println!("settings are right"),
        ConfigCommand::Show { .. } => {
            for (name, value, source) in settings.show(&lookup) {
                println!("{name} = {value:?}  # {source}");
            }
        }
    }
    Ok(())
}
