//! `odograph replay`: decodes the frames in the journal again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use teltonika_codecs::Imei;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::CommandError;
use super::live::{ProgressLine, bar, grouped};
use super::setup::{lookup, runtime, settings, start_logging};
use super::time_argument::{format_time, parse_time};
use crate::config::{AckAfter, Settings};
use crate::ingest::drain::TimeWindow;
use crate::replay::{self, ReplayError, ReplayMode, ReplayReport, ReplayRequest};
use crate::store::{Rewriter, RowDifference};
use odograph_journal::{Archive, Files, Filter};

/// Decode the frames in the journal again and update the table; works next to a running service
///
/// Use it after a mapping of elements was corrected, a time window was too narrow, or rows were deleted. Missing rows are
/// inserted, with the flags that cover them. In other rows only the decoded columns change, never `faulty` or `received_at`.
/// Quarantined records that become rows leave the quarantine. You can interrupt it and run it again.
///
/// The last line of standard output is a JSON object: inserted, updated, unchanged, refused and more.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// TOML file with settings, those of the service; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Received at this time or later: 2026-05-02, 2026-05-02T07:41Z (UTC without an offset), or 24h for that long ago
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    from: Option<i64>,
    /// Received before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    to: Option<i64>,
    /// From this device only
    #[arg(long, value_name = "IMEI")]
    imei: Option<Imei>,
    /// Only report what would change: counts, columns and a few rows
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let filter = Filter { from_us: arguments.from, to_us: arguments.to, imei: arguments.imei };
    check_order(filter.from_us, filter.to_us)?;
    let settings = settings(&lookup(arguments.config.as_ref()))?;
    let _log = start_logging(&settings);
    let archive = archive(&settings)?;
    // Sessions and the drain run first.
    let _ = rustix::process::nice(NICENESS);
    let mode = if arguments.dry_run { ReplayMode::Compare } else { ReplayMode::Write };
    let request = ReplayRequest { filter, window: time_window(&settings), mode };
    runtime()?.block_on(drive(&settings, &archive, &request))
}

/// Checks that `from` is before `to`.
pub(super) fn check_order(from: Option<i64>, to: Option<i64>) -> Result<(), CommandError> {
    match (from, to) {
        (Some(from), Some(to)) if from >= to => Err(CommandError::Usage(format!(
            "odograph: --from {} is not before --to {}",
            format_time(from),
            format_time(to)
        ))),
        _ => Ok(()),
    }
}

/// The time window of the settings.
pub(super) fn time_window(settings: &Settings) -> TimeWindow {
    TimeWindow { past: settings.time_window_past, future: settings.time_window_future }
}

fn archive(settings: &Settings) -> Result<Archive, CommandError> {
    let directory = settings.data_dir.join("journal");
    let opened = match Files::read_only(&directory) {
        Ok(files) => Archive::open(Arc::new(files)),
        Err(error) => return Err(no_journal(settings, &directory, &error)),
    };
    opened.map_err(|e| match std::error::Error::source(&e).and_then(|cause| cause.downcast_ref()) {
        Some(cause) => no_journal(settings, &directory, cause),
        None => CommandError::from_error(&e),
    })
}

fn no_journal(settings: &Settings, directory: &Path, error: &io::Error) -> CommandError {
    let place = directory.display();
    CommandError::Failed(match (error.kind(), settings.ack_after) {
        (io::ErrorKind::NotFound, AckAfter::Commit) => {
            format!("nothing to replay: ack_after = commit keeps no journal, and there is none in {place}")
        }
        (io::ErrorKind::NotFound, AckAfter::Journal) => {
            format!("no journal in {place}: run this where serve runs, with its settings (ODOGRAPH_DATA_DIR)")
        }
        _ => format!("cannot read the journal in {place}: {error}"),
    })
}

async fn drive(settings: &Settings, archive: &Archive, request: &ReplayRequest) -> Result<(), CommandError> {
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| CommandError::from_error(&e))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| CommandError::from_error(&e))?;
    let listening = tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        interrupted.cancel();
    });
    let (mut line, mut done) = (ProgressLine::new(), ReplayReport::default());
    let ended = async {
        let mut rewriter = Rewriter::open(&settings.database_url).await.map_err(ReplayError::Store)?;
        replay::run(archive, &mut rewriter, request, &stop, |outcome| {
            line.progress(&state(outcome));
            done.clone_from(outcome);
        })
        .await
    };
    let ended = ended.await;
    listening.abort();
    match ended {
        Ok(outcome) => {
            report(&mut line, request, &outcome);
            println!("{}", json(request, &outcome));
            match outcome.stopped {
                true => Err(CommandError::Failed(
                    "interrupted; finished work stays, and the same command does the rest".into(),
                )),
                false if outcome.damages > 0 => {
                    Err(CommandError::Failed(format!("{} damaged places in the journal were skipped", outcome.damages)))
                }
                false => Ok(()),
            }
        }
        Err(error) => {
            if done.entries > 0 {
                report(&mut line, request, &done);
                line.say("ended early: finished work stays, and the same command does the rest");
            }
            drop(line);
            Err(CommandError::from_error(&error))
        }
    }
}

fn state(outcome: &ReplayReport) -> String {
    let rewritten = &outcome.rewritten;
    format!(
        "{} {} inserted, {} updated, {} unchanged, {} refused",
        bar(outcome.share),
        grouped(rewritten.inserted),
        grouped(rewritten.updated),
        grouped(rewritten.unchanged),
        grouped(outcome.refused())
    )
}

/// Prints what was done.
fn report(line: &mut ProgressLine, request: &ReplayRequest, outcome: &ReplayReport) {
    let ReplayReport { entries, rewritten, refused, differences, left, given_away, reached_us, .. } = outcome;
    let until = reached_us.map_or(String::new(), |us| format!(", received until {}", format_time(us)));
    line.say(&format!("{} frames and messages decoded again{until}", grouped(*entries)));
    let (would, are) = match request.mode {
        ReplayMode::Write => ("", ""),
        ReplayMode::Compare => ("would be ", "dry run: "),
    };
    line.say(&format!(
        "{are}{} rows {would}inserted, {} {would}updated, {} unchanged",
        grouped(rewritten.inserted),
        grouped(rewritten.updated),
        grouped(rewritten.unchanged)
    ));
    if outcome.refused() > 0 {
        line.say(&format!(
            "{} records refused: {} by the time window, {} of frames that cannot be decoded, {} by the database",
            grouped(outcome.refused()),
            grouped(refused.time_window),
            grouped(refused.undecodable),
            grouped(rewritten.refused)
        ));
    }
    if rewritten.resolved > 0 {
        line.say(&format!("{} records {would}removed from the quarantine", grouped(rewritten.resolved)));
    }
    for (column, rows) in &differences.columns {
        line.say(&format!("  {column}: {} rows", grouped(*rows)));
    }
    for RowDifference { key, columns } in &differences.examples {
        let at = format_time(key.ts_ms.saturating_mul(1000));
        let columns: Vec<_> = columns.iter().map(|(name, now, then)| format!("{name} {now} → {then}")).collect();
        line.say(&format!("  for example {:015} {at}: {}", key.imei, columns.join(", ")));
    }
    if *left > 0 {
        line.say(&format!("{} frames still wait for serve and were left to it", grouped(*left)));
    }
    if *given_away > 0 {
        line.say(&format!(
            "{given_away} segments of the journal were deleted before they were read (ODOGRAPH_JOURNAL_KEEP)"
        ));
    }
}

fn json(request: &ReplayRequest, outcome: &ReplayReport) -> serde_json::Value {
    let ReplayReport { entries, rewritten, refused, differences, left, given_away, damages, stopped, .. } = outcome;
    let mut object = serde_json::json!({
        "inserted": rewritten.inserted, "updated": rewritten.updated, "unchanged": rewritten.unchanged,
        "refused": outcome.refused(),
        "refused_by": {
            "time_window": refused.time_window, "undecodable": refused.undecodable, "database": rewritten.refused,
        },
        "resolved": rewritten.resolved, "messages": rewritten.messages, "entries": entries, "left_to_serve": left,
        "segments_no_longer_kept": given_away, "damages": damages, "interrupted": stopped,
        "dry_run": request.mode == ReplayMode::Compare,
    });
    if request.mode == ReplayMode::Compare {
        object["columns"] = serde_json::json!(differences.columns);
    }
    object
}

/// The lowest priority is 19. A lane of the drain has the same one.
const NICENESS: i32 = 10;
