//! `odograph migrate`: makes or updates the tables.

use std::path::PathBuf;
use std::time::Duration;

use super::{Failure, lookup, runtime, settings, start_logging};
use crate::store::{MigrateOptions, PositionsTable, migrate};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Time that one chunk of the hypertable spans, such as 1d; affects new chunks only
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    chunk_interval: Option<Duration>,
    /// Also index positions by time alone, for queries over all devices
    #[arg(long)]
    index_time: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = settings(&lookup(arguments.config.as_ref()))?;
    start_logging(&settings);
    let options = MigrateOptions { chunk_interval: arguments.chunk_interval, index_time: arguments.index_time };
    let report =
        runtime()?.block_on(migrate(&settings.database_url, &options)).map_err(|wrong| Failure::chain(&wrong))?;
    match report.applied.as_slice() {
        [] => println!("the schema was current"),
        applied => println!("applied: {}", applied.join(", ")),
    }
    match report.positions {
        PositionsTable::Hypertable { timescaledb } => println!("positions is a hypertable (TimescaleDB {timescaledb})"),
        PositionsTable::Embedded => println!("positions is a table of the embedded store"),
        PositionsTable::Plain => eprintln!(
            "odograph: TimescaleDB is not there, so positions is an ordinary table: everything works, but old data cannot \
             be dropped by chunk and queries by time slow down as it grows"
        ),
    }
    Ok(())
}
