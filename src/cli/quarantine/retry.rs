//! `odograph quarantine retry`.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::filter::{FilterArguments, open};
use crate::cli::error::CommandError;
use crate::cli::live::{ProgressLine, grouped};
use crate::cli::replay::time_window;
use crate::cli::setup::runtime;
use crate::replay::{ReplayMode, RetryReport, retry};
use crate::store::{QuarantineReason, Rewriter};

/// Decode the quarantined bytes again with the current version and settings
///
/// A record that becomes a row is stored as if it had just been accepted: it keeps its receive time, and flags that cover it
/// apply. The same transaction removes it from the quarantine. Other records stay. Requires no journal; works next to a
/// running service.
///
/// The last line of standard output is a JSON object: tried, resolved, inserted, updated, unchanged, stay and more.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Only report what would happen
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let filter = arguments.filter.filter()?;
    let (settings, _log) = arguments.filter.settings()?;
    let mode = if arguments.dry_run { ReplayMode::Compare } else { ReplayMode::Write };
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let interrupted = stop.clone();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| CommandError::from_error(&e))?;
        let listening = tokio::spawn(async move {
            interrupt.recv().await;
            interrupted.cancel();
        });
        let mut quarantine = open(&settings).await?;
        let mut rewriter = Rewriter::open(&settings.database_url).await.map_err(|e| CommandError::from_error(&e))?;
        let (mut line, mut done) = (ProgressLine::new(), RetryReport::default());
        let retried =
            retry(&mut quarantine, &mut rewriter, (&filter, time_window(&settings), mode), &stop, |retried| {
                line.progress(&format!("{} tried", grouped(retried.tried)));
                done = *retried;
            });
        let retried = retried.await;
        listening.abort();
        let whole = retried.as_ref().copied().unwrap_or(done);
        report(&mut line, mode, &whole);
        drop(line);
        let retried = retried.map_err(|e| CommandError::from_error(&e))?;
        println!("{}", json(mode, &retried));
        if retried.stopped {
            return Err(CommandError::Failed(
                "interrupted; finished work stays, and the same command does the rest".into(),
            ));
        }
        Ok(())
    })
}

fn report(line: &mut ProgressLine, mode: ReplayMode, retried: &RetryReport) {
    let RetryReport { tried, rewritten, stay, .. } = retried;
    let would = if mode == ReplayMode::Compare { "would be " } else { "" };
    line.say(&format!("{} tried, {} {would}removed from the quarantine", grouped(*tried), grouped(rewritten.resolved)));
    line.say(&format!(
        "{} rows {would}inserted, {} {would}updated, {} unchanged",
        grouped(rewritten.inserted),
        grouped(rewritten.updated),
        grouped(rewritten.unchanged)
    ));
    for reason in QuarantineReason::ALL {
        let stay = stay[reason as usize];
        if stay > 0 {
            line.say(&format!("{} still refused: {}", grouped(stay), reason.as_str()));
        }
    }
}

fn json(mode: ReplayMode, retried: &RetryReport) -> serde_json::Value {
    let RetryReport { tried, rewritten, stay, stopped } = retried;
    let stay = QuarantineReason::ALL.map(|reason| (reason.as_str().to_owned(), stay[reason as usize].into()));
    let stay: serde_json::Map<String, serde_json::Value> = stay.into_iter().collect();
    serde_json::json!({
        "tried": tried, "resolved": rewritten.resolved, "inserted": rewritten.inserted, "updated": rewritten.updated,
        "unchanged": rewritten.unchanged, "messages": rewritten.messages, "stay": stay, "interrupted": stopped,
        "dry_run": mode == ReplayMode::Compare,
    })
}
