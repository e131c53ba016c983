//! `odograph quarantine list`.

use std::io::{self, Write as _};

use super::filter::{FilterArguments, open};
use super::output::{SHORT_ID, device_time, object, written};
use crate::cli::error::CommandError;
use crate::cli::live::grouped;
use crate::cli::setup::runtime;
use crate::cli::time_argument::format_time;
use crate::hex;
use crate::store::{QuarantineEntry, QuarantineTotal};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Maximum number of records to print
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Print one JSON object per record, with its bytes, and nothing else
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let filter = arguments.filter.filter()?;
    let (settings, _log) = arguments.filter.settings()?;
    let (records, totals) = runtime()?.block_on(async {
        let mut quarantine = open(&settings).await?;
        let failed = |e| CommandError::from_error(&e);
        let records = quarantine.newest(&filter, arguments.limit).await.map_err(failed)?;
        let totals = if arguments.json { Vec::new() } else { quarantine.totals(&filter).await.map_err(failed)? };
        Ok((records, totals))
    })?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = if arguments.json { objects(&records, &mut out) } else { table(&records, &totals, &mut out) };
    written(printed.and_then(|()| out.flush()))
}

fn objects(records: &[QuarantineEntry], out: &mut impl io::Write) -> io::Result<()> {
    records.iter().try_for_each(|entry| writeln!(out, "{}", object(entry)))
}

fn table(records: &[QuarantineEntry], totals: &[QuarantineTotal], out: &mut impl io::Write) -> io::Result<()> {
    if !records.is_empty() {
        writeln!(
            out,
            "{:12}  {:24}  {:24}  {:15}  {:>6}  {:11}  detail",
            "id", "first received", "device time", "imei", "seen", "reason"
        )?;
    }
    for entry in records {
        let QuarantineEntry { imei, digest, reason, detail, received_at_us, seen, record_index, .. } = entry;
        let device_time = device_time(entry).unwrap_or_else(|| "-".to_owned());
        let id = hex::text(digest);
        let id = id.get(..SHORT_ID).unwrap_or_default();
        let whole = if record_index.is_none() { " (a whole frame)" } else { "" };
        let received = format_time(*received_at_us);
        writeln!(out, "{id}  {received:24}  {device_time:24}  {imei}  {seen:>6}  {reason:11}  {detail}{whole}")?;
    }
    let all: u64 = totals.iter().map(|total| total.records).sum();
    let printed = u64::try_from(records.len()).unwrap_or(u64::MAX);
    if printed < all {
        writeln!(out, "… and {} more (--limit)", grouped(all - printed))?;
    }
    for QuarantineTotal { reason, records, seen } in totals {
        writeln!(out, "{reason}: {} in quarantine, received {} times", grouped(*records), grouped(*seen))?;
    }
    if totals.is_empty() { writeln!(out, "no matching record is in quarantine") } else { Ok(()) }
}
