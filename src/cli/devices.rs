//! `odograph devices`: what admission knows, from its files in the data directory; also beside a running `serve`.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;
use teltonika_codecs::Imei;

use super::error::CommandError;
use super::setup::{lookup, settings};
use crate::config::{AdmissionMode, Settings};
use crate::ingest::admission::{KnownFile, Stranger, StrangerFile, time};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// List the unknown devices that were refused of late, the last one first; a few seconds behind `serve`
    Unknown {
        #[command(flatten)]
        options: Options,
    },
    /// Print the devices that may log in as `serve` last knew them; with IMEIs, only whether these may: exit code 1 if one may not
    Known {
        /// Devices to look for
        #[arg(value_name = "IMEI")]
        imeis: Vec<Imei>,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(clap::Args)]
struct Options {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let (What::Unknown { options } | What::Known { options, .. }) = &arguments.what;
    let settings = settings(&lookup(options.config.as_ref()))?;
    if settings.admission == AdmissionMode::Open {
        eprintln!("odograph: admission is open, so every tracker may log in; see ODOGRAPH_ADMISSION");
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = match &arguments.what {
        What::Unknown { options } => unknown(&settings, options, &mut out),
        What::Known { imeis, options } => known(&settings, imeis, options, &mut out),
    };
    match printed.and_then(|refused| Ok(out.flush().map(|()| refused)?)) {
        Ok(0) => Ok(()),
        Ok(_) => Err(CommandError::Reported),
        // Whoever reads our output has enough: that is no failure.
        Err(Stopped::Output(wrong)) if wrong.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stopped::Output(wrong)) => Err(CommandError::from_error(&wrong)),
        Err(Stopped::Failed(text)) => Err(CommandError::Failed(text)),
    }
}

/// Why printing ended early.
enum Stopped {
    Failed(String),
    Output(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(wrong: io::Error) -> Self {
        Self::Output(wrong)
    }
}

fn unknown(settings: &Settings, options: &Options, out: &mut impl Write) -> Result<usize, Stopped> {
    let failed = |wrong| Stopped::Failed(format!("unknown-devices.json in {}: {wrong}", settings.data_dir.display()));
    let Some(strangers) = StrangerFile::new(&settings.data_dir).read().map_err(failed)? else {
        eprintln!("odograph: in {} nobody has been refused", settings.data_dir.display());
        return Ok(0);
    };
    if !options.json {
        writeln!(out, "{:<15}  {:>8}  {:<20}  {:<20}  address", "IMEI", "attempts", "first", "last")?;
    }
    for Stranger { imei, attempts, first, last, address } in &strangers {
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
        eprintln!("register one in Directus' collection devices, or by INSERT INTO devices (imei) VALUES ('IMEI')");
    }
    Ok(0)
}

/// Gives the number of devices that were asked for and may not log in.
fn known(settings: &Settings, imeis: &[Imei], options: &Options, out: &mut impl Write) -> Result<usize, Stopped> {
    let file = KnownFile::new(&settings.data_dir);
    let failed = |wrong| Stopped::Failed(format!("{}: {wrong}", file.path().display()));
    let remembered = file.read().map_err(failed)?.ok_or_else(|| {
        let directory = settings.data_dir.display();
        Stopped::Failed(format!("in {directory} no list of devices has been known yet: no tracker is admitted"))
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
    eprintln!("odograph: {devices} devices, read from the database last at {}", time(remembered.confirmed));
    Ok(refused)
}
