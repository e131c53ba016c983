//! `odograph check`: whether this installation is sound. One line for each check, with what to do about it.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::error::CommandError;
use super::setup::{lookup, runtime, wrong_settings};
use crate::check::{CheckStatus, Finding, check, of_mistakes};
use crate::config::Settings;

/// Check this installation: settings, this machine, the running service, the database, Redis. Changes nothing. Exit code
/// 1 if something is wrong, 2 for wrong settings
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Leave out the checks that are ok
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let lookup = lookup(arguments.config.as_ref());
    let (found, failure) = match Settings::load(&lookup) {
        Err(mistakes) => (vec![of_mistakes(&mistakes)], Some(wrong_settings(&mistakes))),
        Ok(settings) => {
            let runtime = runtime()?;
            let found = runtime.block_on(check(&settings, &lookup));
            // A file system that hangs would hold its thread forever.
            runtime.shutdown_background();
            (found, None)
        }
    };
    if arguments.json {
        println!("{}", json(&found));
    } else {
        print!("{}", table(&found, arguments.quiet));
    }
    let wrong = count(&found, CheckStatus::Wrong) > 0;
    failure.or(wrong.then_some(CommandError::Reported)).map_or(Ok(()), Err)
}

fn json(found: &[Finding]) -> serde_json::Value {
    serde_json::json!({
        "sound": count(found, CheckStatus::Wrong) == 0,
        "ok": count(found, CheckStatus::Ok),
        "notes": count(found, CheckStatus::Note),
        "wrong": count(found, CheckStatus::Wrong),
        "unknown": count(found, CheckStatus::Unknown),
        "findings": found,
    })
}

/// Neighbouring checks that are unknown for the same reason share one line.
fn table(found: &[Finding], quiet: bool) -> String {
    let mut text = String::new();
    let width = found.iter().map(|finding| finding.check.as_str().len()).max().unwrap_or(0);
    let mut rest = found;
    while let Some(finding) = rest.first() {
        let alike = rest.iter().take_while(|next| {
            next.status == CheckStatus::Unknown && next.status == finding.status && next.found == finding.found
        });
        let alike = alike.count().max(1);
        let (these, later) = rest.split_at(alike);
        rest = later;
        if quiet && finding.status == CheckStatus::Ok {
            continue;
        }
        let (status, name) = (shown(finding.status), finding.check.as_str());
        // Writing to a string does not fail.
        let _ = writeln!(text, "{status:<8}{name:<width$}  {}", finding.found);
        if these.len() > 1 {
            let others: Vec<_> = these.iter().skip(1).map(|finding| finding.check.as_str()).collect();
            let _ = writeln!(text, "{:<8}{:<width$}  nor {}", "", "", others.join(", "));
        }
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "{:<8}{:<width$}  -> {remedy}", "", "");
        }
    }
    let of = |status| count(found, status);
    let (ok, notes, wrong, unknown) =
        (of(CheckStatus::Ok), of(CheckStatus::Note), of(CheckStatus::Wrong), of(CheckStatus::Unknown));
    let _ = writeln!(text, "{ok} ok, {notes} to note, {wrong} wrong, {unknown} unknown");
    text
}

fn shown(status: CheckStatus) -> &'static str {
    match status {
        CheckStatus::Ok => "ok",
        CheckStatus::Note => "note",
        CheckStatus::Wrong => "WRONG",
        CheckStatus::Unknown => "unknown",
    }
}

fn count(found: &[Finding], status: CheckStatus) -> usize {
    found.iter().filter(|finding| finding.status == status).count()
}
