//! The binary: parses the command, runs it, exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    odograph::cli::main()
}
