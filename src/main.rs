//! The binary: parse the command, run it, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    odograph::cli::main()
}
