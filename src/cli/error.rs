//! How a command fails.

use std::error::Error;
use std::process::ExitCode;

/// Why a command did not succeed, with the text for standard error. Nothing has been printed yet.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// Wrong settings or usage: exit code 2. The text is a whole line, `odograph: ` included.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
    /// The output says it already: exit code 1.
    Reported,
}

impl CommandError {
    /// A failure with its chain of causes.
    pub(super) fn from_error(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let cause = error.to_string();
            if !text.ends_with(&cause) {
                text = format!("{text}: {cause}");
            }
            source = error.source();
        }
        Self::Failed(text)
    }

    /// Prints the text and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        match self {
            Self::Reported => ExitCode::FAILURE,
            Self::Failed(text) => {
                note!("odograph: {text}");
                ExitCode::FAILURE
            }
            Self::Usage(text) => {
                note!("{text}");
                ExitCode::from(2)
            }
        }
    }
}
