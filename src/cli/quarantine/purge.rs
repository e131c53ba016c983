//! `odograph quarantine purge`.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use super::filter::{FilterArguments, open};
use crate::cli::error::CommandError;
use crate::cli::live::grouped;
use crate::cli::setup::runtime;
use crate::store::QuarantineFilter;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Delete everything; required if there is no filter
    #[arg(long)]
    all: bool,
    /// Do not ask for confirmation; required without a terminal
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let mut filter = arguments.filter.filter()?;
    if filter == QuarantineFilter::default() && !arguments.all {
        return Err(CommandError::Usage(
            "odograph: select records with --reason, --imei, --from or --to, or pass --all".to_owned(),
        ));
    }
    if !arguments.yes && !io::stdin().is_terminal() {
        return Err(CommandError::Usage("odograph: deleting without a terminal requires --yes".to_owned()));
    }
    // Records that arrive during the purge are not meant, and they could keep arriving forever.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    filter.to_us = Some(filter.to_us.map_or(now_us, |to| to.min(now_us)));
    let (settings, _log) = arguments.filter.settings()?;
    let purged = runtime()?.block_on(async {
        let failed = |e| CommandError::from_error(&e);
        let mut quarantine = open(&settings).await?;
        if !arguments.yes {
            let totals = quarantine.totals(&filter).await.map_err(failed)?;
            confirm(totals.iter().map(|total| total.records).sum())?;
        }
        let mut purged = 0;
        loop {
            let deleted = quarantine.purge_some(&filter).await.map_err(failed)?;
            if deleted == 0 {
                return Ok(purged);
            }
            purged += deleted;
            tokio::time::sleep(PAUSE).await;
        }
    })?;
    note!("{} records deleted from the quarantine", grouped(purged));
    println!("{}", serde_json::json!({ "purged": purged }));
    Ok(())
}

/// Asks on the terminal.
fn confirm(records: u64) -> Result<(), CommandError> {
    let _ = write!(io::stderr(), "delete {} records forever? yes or no: ", grouped(records));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| CommandError::from_error(&e))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(CommandError::Failed("nothing was deleted".to_owned())),
    }
}

/// Between two transactions, so that a writer waiting for the same rows goes first.
const PAUSE: Duration = Duration::from_millis(20);
