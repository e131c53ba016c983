//! `odograph devices`: prints what admission knows, from its files in the data directory. Works next to a running `serve`.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;
use teltonika_codecs::Imei;

use super::error::CommandError;
use super::setup::{lookup, settings};
use crate::config::{AdmissionMode, Settings};
use crate::ingest::admission::{KnownFile, UnknownDevice, UnknownDeviceFile, time};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: DevicesCommand,
}

#[derive(clap::Subcommand)]
enum DevicesCommand {
    /// List the unknown devices that were refused recently, the last one first; a few seconds behind `serve`
    Unknown {
        #[command(flatten)]
        options: OutputOptions,
    },
    /// Print the devices that may log in, as `serve` last knew them. With IMEIs: print only whether these may, with exit code
    /// 1 if one may not
    Known {
        /// Devices to look up
        #[arg(value_name = "IMEI")]
        imeis: Vec<Imei>,
        #[command(flatten)]
        options: OutputOptions,
    },
}

#[derive(clap::Args)]
struct OutputOptions {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let (DevicesCommand::Unknown { options } | DevicesCommand::Known { options, .. }) = &arguments.command;
    let settings = settings(&lookup(options.config.as_ref()))?;
    if settings.admission == AdmissionMode::Open {
        note!("odograph: admission is open, so every tracker may log in; see ODOGRAPH_ADMISSION");
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = match &arguments.command {
        DevicesCommand::Unknown { options } => unknown(&settings, options, &mut out),
        DevicesCommand::Known { imeis, options } => known(&settings, imeis, options, &mut out),
    };
    match printed.and_then(|refused| Ok(out.flush().map(|()| refused)?)) {
        Ok(0) => Ok(()),
        Ok(_) => Err(CommandError::Reported),
        // A reader that closed the pipe early has what it wanted: not a failure.
        Err(PrintError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(PrintError::Output(error)) => Err(CommandError::from_error(&error)),
        Err(PrintError::Failed(text)) => Err(CommandError::Failed(text)),
    }
}

/// Why printing ended early.
enum PrintError {
    Failed(String),
    Output(io::Error),
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn unknown(settings: &Settings, options: &OutputOptions, out: &mut impl Write) -> Result<usize, PrintError> {
    let failed = |e| PrintError::Failed(format!("unknown-devices.json in {}: {e}", settings.data_dir.display()));
    let Some(strangers) = UnknownDeviceFile::new(&settings.data_dir).read().map_err(failed)? else {
        note!("odograph: no device was refused, according to {}", settings.data_dir.display());
        return Ok(0);
    };
    if !options.json {
        writeln!(out, "{:<15}  {:>8}  {:<20}  {:<20}  address", "IMEI", "attempts", "first", "last")?;
    }
    for UnknownDevice { imei, attempts, first, last, address } in &strangers {
        let (imei, first, last) = (imei.to_string(), time(*first), time(*last));
        if options.json {
            let line = json!({"imei": imei, "attempts": attempts, "first": first, "last": last, "address": address});
            writeln!(out, "{line}")?;
        } else {
            let address = address.map_or("-".to_owned(), |address| address.to_string());
            writeln!(out, "{imei:<15}  {attempts:>8}  {first:<20}  {last:<20}  {address}")?;
        }
    }
    if !options.json && !strangers.is_empty() {
        out.flush()?;
        note!("register one in the Directus collection devices, or with INSERT INTO devices (imei) VALUES ('IMEI')");
    }
    Ok(0)
}

/// Gives the number of requested devices that may not log in.
fn known(
    settings: &Settings,
    imeis: &[Imei],
    options: &OutputOptions,
    out: &mut impl Write,
) -> Result<usize, PrintError> {
    let file = KnownFile::new(&settings.data_dir);
    let failed = |e| PrintError::Failed(format!("{}: {e}", file.path().display()));
    let remembered = file.read().map_err(failed)?.ok_or_else(|| {
        let directory = settings.data_dir.display();
        PrintError::Failed(format!("no list of devices in {directory} yet: no tracker is admitted"))
    })?;
    let (mut refused, mut print) = (0, |imei: Imei, known: bool| {
        if options.json {
            writeln!(out, "{}", json!({"imei": imei.to_string(), "known": known}))
        } else if imeis.is_empty() {
            writeln!(out, "{imei}")
        } else {
            writeln!(out, "{imei} {}", if known { "known" } else { "unknown" })
        }
    });
    for imei in imeis {
        let known = remembered.list.contains(*imei);
        refused += usize::from(!known);
        print(*imei, known)?;
    }
    if imeis.is_empty() {
        remembered.list.iter().try_for_each(|imei| print(imei, true))?;
    }
    let devices = remembered.list.len();
    note!("odograph: {devices} devices, last read from the database at {}", time(remembered.confirmed));
    Ok(refused)
}
