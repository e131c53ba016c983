//! Lines for the person at the terminal, on standard error. They never end the command: `eprintln!` panics if standard error
//! is a full disk or a closed pipe.

/// Prints a line on standard error, if that takes it.
macro_rules! note {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
