//! `odograph quarantine`: looks at what could not become a position, tries it again, or clears it.

mod list;
mod purge;
mod retry;
mod show;

use std::io;
use std::path::PathBuf;

use teltonika_codecs::Imei;

use super::replay::{in_order, window};
use super::when::time;
use super::{Failure, lookup, runtime, settings, start_logging};
use crate::config::Settings;
use crate::store::{Quarantine, QuarantineEntry, QuarantineFilter, QuarantineReason};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Print records, newest first, and how many there are of each reason
    List(list::Arguments),
    /// Print everything about one record: where it came from, its bytes, and what they say
    Show(show::Arguments),
    Retry(retry::Arguments),
    /// Delete records for good
    Purge(purge::Arguments),
}

/// Which records are meant.
#[derive(clap::Args)]
struct Filter {
    /// Refused for this reason
    #[arg(long, value_enum)]
    reason: Option<Reason>,
    /// Of this device only
    #[arg(long, value_name = "IMEI")]
    imei: Option<Imei>,
    /// First received at this time or later: 2026-05-02, 2026-05-02T07:41Z (UTC without an offset), or 24h for that long ago
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    from: Option<i64>,
    /// First received before this time
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    to: Option<i64>,
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Reason {
    /// The checksum is right, and the content is not
    Undecodable,
    /// The device time lies outside the window around the receive time
    #[value(alias = "time_window")]
    TimeWindow,
    /// The database refuses the row
    Refused,
}

impl Filter {
    fn of(&self) -> Result<QuarantineFilter, Failure> {
        let Self { reason, imei, from: from_us, to: to_us, config: _ } = *self;
        in_order(from_us, to_us)?;
        let reason = reason.map(|reason| match reason {
            Reason::Undecodable => QuarantineReason::Undecodable,
            Reason::TimeWindow => QuarantineReason::TimeWindow,
            Reason::Refused => QuarantineReason::Refused,
        });
        Ok(QuarantineFilter { reason, imei, from_us, to_us, digest: None })
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let settings = settings(&lookup(self.config.as_ref()))?;
        start_logging(&settings);
        Ok(settings)
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.what {
        What::List(arguments) => list::run(arguments),
        What::Show(arguments) => show::run(arguments),
        What::Retry(arguments) => retry::run(arguments),
        What::Purge(arguments) => purge::run(arguments),
    }
}

async fn open(settings: &Settings) -> Result<Quarantine, Failure> {
    Quarantine::open(&settings.database_url).await.map_err(|wrong| Failure::chain(&wrong))
}

/// Whoever reads our output may have enough: that is no failure.
fn written(done: io::Result<()>) -> Result<(), Failure> {
    match done {
        Err(wrong) if wrong.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|wrong| Failure::chain(&wrong)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One object for scripts.
fn object(kept: &QuarantineEntry) -> serde_json::Value {
    let QuarantineEntry {
        imei,
        digest,
        reason,
        detail,
        received_at_us,
        journal,
        position,
        record_index,
        codec,
        bytes,
        seen,
    } = kept;
    serde_json::json!({
        "id": hex(digest), "imei": imei.to_string(), "reason": reason, "detail": detail,
        "received_at": super::when::shown(*received_at_us), "seen": seen, "journal": journal.to_string(),
        "position": position.0, "record_index": record_index, "codec": codec, "hex": hex(bytes),
    })
}

/// Digits of an id that tell records apart among some thousands.
const SHORT_ID: usize = 12;
