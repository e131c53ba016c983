//! `odograph quarantine retry`.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::filter::{FilterArguments, open};
use crate::cli::error::CommandError;
use crate::cli::live::{Live, grouped};
use crate::cli::replay::time_window;
use crate::cli::setup::runtime;
use crate::replay::{Mode, Retried, retry};
use crate::store::{QuarantineReason, Rewriter};

/// Decode kept bytes again with today's program and settings
///
/// What becomes a row is stored as if it had just been accepted (its receive time stays, flags that cover it hold), and leaves the
/// quarantine in the same transaction. The rest stays. Needs no journal; beside a running service.
///
/// The last line of standard output is a JSON object: tried, resolved, inserted, updated, unchanged, stay and more.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Only say what would become of them
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let filter = arguments.filter.filter()?;
    let settings = arguments.filter.settings()?;
    let mode = if arguments.dry_run { Mode::Compare } else { Mode::Write };
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let interrupted = stop.clone();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|wrong| CommandError::from_error(&wrong))?;
        let listening = tokio::spawn(async move {
            interrupt.recv().await;
            interrupted.cancel();
        });
        let mut quarantine = open(&settings).await?;
        let mut rewriter =
            Rewriter::open(&settings.database_url).await.map_err(|wrong| CommandError::from_error(&wrong))?;
        let (mut live, mut done) = (Live::new(), Retried::default());
        let retried =
            retry(&mut quarantine, &mut rewriter, (&filter, time_window(&settings), mode), &stop, |retried| {
                live.progress(&format!("{} tried", grouped(retried.tried)));
                done = *retried;
            });
        let retried = retried.await;
        listening.abort();
        let whole = retried.as_ref().copied().unwrap_or(done);
        told(&mut live, mode, &whole);
        drop(live);
        let retried = retried.map_err(|wrong| CommandError::from_error(&wrong))?;
        println!("{}", json(mode, &retried));
        if retried.stopped {
            return Err(CommandError::Failed(
                "interrupted; what was done stays, and the same command finishes it".into(),
            ));
        }
        Ok(())
    })
}

fn told(live: &mut Live, mode: Mode, retried: &Retried) {
    let Retried { tried, rewritten, stay, .. } = retried;
    let would = if mode == Mode::Compare { "would be " } else { "" };
    live.say(&format!("{} tried, {} {would}gone from the quarantine", grouped(*tried), grouped(rewritten.resolved)));
    live.say(&format!(
        "{} rows {would}inserted, {} {would}updated, {} stand there already",
        grouped(rewritten.inserted),
        grouped(rewritten.updated),
        grouped(rewritten.unchanged)
    ));
    for reason in QuarantineReason::ALL {
        let stay = stay[reason as usize];
        if stay > 0 {
            live.say(&format!("{} still refused: {}", grouped(stay), reason.as_str()));
        }
    }
}

fn json(mode: Mode, retried: &Retried) -> serde_json::Value {
    let Retried { tried, rewritten, stay, stopped } = retried;
    let stay = QuarantineReason::ALL.map(|reason| (reason.as_str().to_owned(), stay[reason as usize].into()));
    let stay: serde_json::Map<String, serde_json::Value> = stay.into_iter().collect();
    serde_json::json!({
        "tried": tried, "resolved": rewritten.resolved, "inserted": rewritten.inserted, "updated": rewritten.updated,
        "unchanged": rewritten.unchanged, "messages": rewritten.messages, "stay": stay, "interrupted": stopped,
        "dry_run": mode == Mode::Compare,
    })
}
