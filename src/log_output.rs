//! Where log lines go: to standard error, written by a thread of its own. A slow or broken reader of the log holds up no
//! session and ends no process. A line that finds no room, or that cannot be written, is lost and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::counter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::metrics::Registry;

/// The open log. Dropping it writes the lines that wait, for a second at most.
#[must_use]
pub struct LogOutput {
    losses: LogLosses,
    _worker: WorkerGuard,
}

/// Counts the lines that were lost.
#[derive(Clone)]
pub struct LogLosses {
    without_room: ErrorCounter,
    unwritten: Arc<AtomicU64>,
}

impl LogOutput {
    /// Starts the thread that writes to standard error. Returns what log lines are given to.
    pub fn start() -> (NonBlocking, Self) {
        let unwritten = Arc::default();
        let output = CountedOutput { output: io::stderr(), unwritten: Arc::clone(&unwritten) };
        let (lines, worker) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(MAX_WAITING_LINES)
            .thread_name("odograph-log")
            .finish(output);
        let losses = LogLosses { without_room: lines.error_counter(), unwritten };
        (lines, Self { losses, _worker: worker })
    }

    /// What was lost so far.
    #[must_use]
    pub fn losses(&self) -> LogLosses {
        self.losses.clone()
    }
}

impl LogLosses {
    /// Lines lost since the start.
    #[must_use]
    pub fn lines(&self) -> u64 {
        let without_room = u64::try_from(self.without_room.dropped_lines()).unwrap_or(u64::MAX);
        without_room.saturating_add(self.unwritten.load(Ordering::Relaxed))
    }

    /// Registers `odograph_log_lines_lost_total`, and has the log say how many lines are missing once it takes lines again.
    pub fn publish(self, registry: &Registry) {
        let lost_lines = registry.register(|| counter!("odograph_log_lines_lost_total"));
        let (seen, reported) = (AtomicU64::new(0), AtomicU64::new(0));
        registry.before_each_answer(move || {
            let lost = self.lines();
            lost_lines.absolute(lost);
            // Still losing lines: this one would be lost as well.
            let has_ended = seen.swap(lost, Ordering::Relaxed) == lost;
            if has_ended && reported.swap(lost, Ordering::Relaxed) < lost {
                tracing::warn!(lines = lost, "log lines were lost: standard error was full, closed or too slow");
            }
        });
    }
}

/// An output whose failures are counted and never reported to the caller.
struct CountedOutput<W> {
    output: W,
    unwritten: Arc<AtomicU64>,
}

impl<W: Write> Write for CountedOutput<W> {
    /// Takes one whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.output.write_all(line).is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.output.flush();
        Ok(())
    }
}

/// Enough for a burst of a second. With lines of usual length it is a few megabytes.
const MAX_WAITING_LINES: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_is_counted_and_hidden_from_the_writer() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut output = CountedOutput { output: Full, unwritten: Arc::default() };
        for _ in 0..3 {
            output.write_all(b"a line\n").unwrap();
        }
        output.flush().unwrap();
        assert_eq!(output.unwritten.load(Ordering::Relaxed), 3);
    }
}
