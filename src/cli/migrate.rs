//! `odograph migrate`: creates or updates the tables.

use std::path::PathBuf;
use std::time::Duration;

use super::error::CommandError;
use super::setup::{lookup, runtime, settings, start_logging};
use crate::store::{Features, MigrateOptions, PositionsTable, migrate};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Time span of one chunk of the hypertable, such as 1d; affects new chunks only
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    chunk_interval: Option<Duration>,
    /// Also index positions by time alone, for queries over all devices
    #[arg(long)]
    index_time: bool,
    /// Install the triggers and tables that publish marshals' flags; requires the Directus collections `devices` and
    /// `position_flags`
    #[arg(long)]
    directus: bool,
    /// Create a table `devices` if there is none. Without this option, Directus owns the table and it is only read
    #[arg(long)]
    standalone_devices: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let settings = settings(&lookup(arguments.config.as_ref()))?;
    let _log = start_logging(&settings);
    let options = MigrateOptions {
        chunk_interval: arguments.chunk_interval,
        index_time: arguments.index_time,
        directus: arguments.directus,
        standalone_devices: arguments.standalone_devices,
    };
    let report =
        runtime()?.block_on(migrate(&settings.database_url, &options)).map_err(|e| CommandError::from_error(&e))?;
    match report.applied.as_slice() {
        [] => println!("the schema was current"),
        applied => println!("applied: {}", applied.join(", ")),
    }
    if !report.restored.is_empty() {
        note!("odograph: these tables were missing and were created again, empty: {}", report.restored.join(", "));
    }
    match &report.positions {
        PositionsTable::Hypertable { timescaledb } => println!("positions is a hypertable (TimescaleDB {timescaledb})"),
        PositionsTable::Embedded => println!("positions is a table of the embedded store"),
        PositionsTable::Plain => println!("positions is an ordinary table"),
    }
    if !report.by_device {
        println!("there is no table devices, so no view positions_by_device: run this again when the table exists");
    }
    if let Some(lacks) = (Features { positions: report.positions, columnstore: report.columnstore }).lacks() {
        note!("odograph: {lacks}");
    }
    Ok(())
}
