//! `odograph quarantine purge`.

use std::io::{self, IsTerminal as _};
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
    /// Without any filter: everything
    #[arg(long)]
    all: bool,
    /// Do not ask; needed where nobody is at a terminal
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let mut filter = arguments.filter.filter()?;
    if filter == QuarantineFilter::default() && !arguments.all {
        return Err(CommandError::Usage(
            "odograph: name what to delete by --reason, --imei, --from or --to, or say --all".to_owned(),
        ));
    }
    if !arguments.yes && !io::stdin().is_terminal() {
        return Err(CommandError::Usage(
            "odograph: deleting for good needs --yes where nobody can be asked".to_owned(),
        ));
    }
    // What comes meanwhile was not meant, and could go on coming for ever.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    filter.to_us = Some(filter.to_us.map_or(now_us, |to| to.min(now_us)));
    let settings = arguments.filter.settings()?;
    let purged = runtime()?.block_on(async {
        let failed = |wrong| CommandError::from_error(&wrong);
        let mut quarantine = open(&settings).await?;
        if !arguments.yes {
            let totals = quarantine.totals(&filter).await.map_err(failed)?;
            ask(totals.iter().map(|total| total.records).sum())?;
        }
        let mut purged = 0;
        loop {
            let gone = quarantine.purge_some(&filter).await.map_err(failed)?;
            if gone == 0 {
                return Ok(purged);
            }
            purged += gone;
            tokio::time::sleep(PAUSE).await;
        }
    })?;
    eprintln!("{} records are gone from the quarantine", grouped(purged));
    println!("{}", serde_json::json!({ "purged": purged }));
    Ok(())
}

fn ask(records: u64) -> Result<(), CommandError> {
    eprint!("delete {} records for good? yes or no: ", grouped(records));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|wrong| CommandError::from_error(&wrong))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(CommandError::Failed("nothing was deleted".to_owned())),
    }
}

/// Between two transactions, so that a writer who waits for the same rows gets them first.
const PAUSE: Duration = Duration::from_millis(20);
