//! Progress of a command on standard error: one line that is overwritten on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use odograph_fleet::Progress;

/// The progress line.
pub(super) struct ProgressLine {
    terminal: bool,
    open: bool,
    shown_at: Option<Instant>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), open: false, shown_at: None }
    }

    /// Shows the progress. Keep the line below 80 columns: a terminal cannot overwrite a wrapped line.
    pub(super) fn show(&mut self, line: &str) {
        let mut out = std::io::stderr().lock();
        // If standard error is closed, nobody reads this.
        let _ = if self.terminal { write!(out, "\r\x1b[2K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
        self.open = self.terminal;
    }

    /// Shows progress that changes often. Prints on a terminal only, a few times a second.
    pub(super) fn progress(&mut self, line: &str) {
        if self.terminal && self.shown_at.is_none_or(|at| at.elapsed() > REDRAW_EVERY) {
            self.show(line);
            self.shown_at = Some(Instant::now());
        }
    }

    /// Writes a line that stays.
    pub(super) fn say(&mut self, line: &str) {
        self.end();
        note!("{line}");
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            note!();
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.end();
    }
}

const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// A bar of 20 characters.
pub(super) fn bar(share: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 20")]
    let full = (share.clamp(0.0, 1.0) * 20.0) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(20 - full))
}

/// A count with separated thousands.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|part| String::from_utf8_lossy(part)).collect();
    parts.join(",")
}

/// How soon packets were answered.
pub(super) fn answered(progress: &Progress) -> String {
    let ms = |percent| progress.answered_within(percent).as_secs_f64() * 1e3;
    format!("half of the packets within {:.1} ms, 99 of 100 within {:.1} ms", ms(50), ms(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn the_bar_always_has_the_same_length() {
        for (share, text) in
            [(-1.0, "[--------------------]"), (0.5, "[##########----------]"), (2.0, "[####################]")]
        {
            assert_eq!(bar(share), text);
        }
    }
}
