//! The subcommands of `odograph quarantine`.

use super::{list, purge, retry, show};
use crate::cli::error::CommandError;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(subcommand)]
    command: QuarantineCommand,
}

#[derive(clap::Subcommand)]
enum QuarantineCommand {
    /// Print records, newest first, and how many there are for each reason
    List(list::Arguments),
    /// Print everything about one record: its origin, its bytes, and what they mean
    Show(show::Arguments),
    Retry(retry::Arguments),
    /// Delete records forever
    Purge(purge::Arguments),
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    match &arguments.command {
        QuarantineCommand::List(arguments) => list::run(arguments),
        QuarantineCommand::Show(arguments) => show::run(arguments),
        QuarantineCommand::Retry(arguments) => retry::run(arguments),
        QuarantineCommand::Purge(arguments) => purge::run(arguments),
    }
}
