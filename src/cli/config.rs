//! `odograph config`: every mistake in one run, or the effective settings with secrets masked.

use std::path::PathBuf;

use super::error::CommandError;
use super::setup::{lookup, settings};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
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
    let (What::Check { config } | What::Show { config }) = &arguments.what;
    let lookup = lookup(config.as_ref());
    let settings = settings(&lookup)?;
    for name in lookup.unknown_variables() {
        eprintln!("odograph: {name} is no setting of this version and has no effect");
    }
    match arguments.what {
        What::Check { .. } => println!("settings are right"),
        What::Show { .. } => {
            for (name, value, source) in settings.show(&lookup) {
                println!("{name} = {value:?}  # {source}");
            }
        }
    }
    Ok(())
}
