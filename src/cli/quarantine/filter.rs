//! Which records of the quarantine a command is about, and the settings that lead to them.

use std::path::PathBuf;

use teltonika_codecs::Imei;

use crate::cli::error::CommandError;
use crate::cli::replay::check_order;
use crate::cli::setup::{lookup, settings, start_logging};
use crate::cli::time_argument::parse_time;
use crate::config::Settings;
use crate::log_output::LogOutput;
use crate::store::{Quarantine, QuarantineFilter, QuarantineReason};

/// Options that all quarantine commands share.
#[derive(clap::Args)]
pub(super) struct FilterArguments {
    /// Refused for this reason
    #[arg(long, value_enum)]
    reason: Option<ReasonArgument>,
    /// From this device only
    #[arg(long, value_name = "IMEI")]
    imei: Option<Imei>,
    /// First received at this time or later: 2026-05-02, 2026-05-02T07:41Z (UTC without an offset), or 24h for that long ago
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    from: Option<i64>,
    /// First received before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    to: Option<i64>,
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ReasonArgument {
    /// The checksum is right, but the content cannot be decoded
    Undecodable,
    /// The device time is outside the window around the receive time
    #[value(alias = "time_window")]
    TimeWindow,
    /// The database refused the row
    Refused,
}

impl FilterArguments {
    /// The filter for the store.
    ///
    /// # Errors
    /// If `--from` is not before `--to`.
    pub(super) fn filter(&self) -> Result<QuarantineFilter, CommandError> {
        let Self { reason, imei, from: from_us, to: to_us, config: _ } = *self;
        check_order(from_us, to_us)?;
        let reason = reason.map(|reason| match reason {
            ReasonArgument::Undecodable => QuarantineReason::Undecodable,
            ReasonArgument::TimeWindow => QuarantineReason::TimeWindow,
            ReasonArgument::Refused => QuarantineReason::Refused,
        });
        Ok(QuarantineFilter { reason, imei, from_us, to_us, digest: None })
    }

    /// Reads the settings and starts logging. The log lives as long as its output.
    pub(super) fn settings(&self) -> Result<(Settings, LogOutput), CommandError> {
        let settings = settings(&lookup(self.config.as_ref()))?;
        let log = start_logging(&settings);
        Ok((settings, log))
    }
}

/// Opens the quarantine in the database of the settings.
pub(super) async fn open(settings: &Settings) -> Result<Quarantine, CommandError> {
    Quarantine::open(&settings.database_url).await.map_err(|e| CommandError::from_error(&e))
}
