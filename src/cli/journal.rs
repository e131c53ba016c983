//! `odograph journal`: inspects the files of a journal. Works next to a running `serve` and changes nothing.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use teltonika_codecs::{Imei, crc16};

use super::error::CommandError;
use super::setup::{lookup, settings};
use super::time_argument::format_time;
use odograph_journal::{Archive, EntryKind, Files, Filter, GroupView, OpenError, ScanItem};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(clap::Subcommand)]
enum JournalCommand {
    /// Print segments with their groups, entries, positions and receive times; exit code 1 if something is damaged
    Inspect {
        #[command(flatten)]
        directory: DirectoryArguments,
        /// Also print every group
        #[arg(long)]
        groups: bool,
    },
    /// Print frames as hex lines for `odograph decode`; exit code 1 if something is damaged
    Dump {
        #[command(flatten)]
        directory: DirectoryArguments,
        /// Received at this time or later, such as 2026-05-02T07:41:00Z
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
        from: Option<SystemTime>,
        /// Received before this time
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
        to: Option<SystemTime>,
        /// From this device only
        #[arg(long, value_name = "IMEI")]
        imei: Option<Imei>,
    },
}

#[derive(clap::Args)]
struct DirectoryArguments {
    /// Directory of the journal. Default: `journal` in the data directory of the settings
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let mut out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let damages = match &arguments.command {
        JournalCommand::Inspect { directory, groups } => inspect(&directory.archive()?, *groups, &mut out),
        JournalCommand::Dump { directory, from, to, imei } => {
            let filter = Filter { from_us: from.map(micros), to_us: to.map(micros), imei: *imei };
            dump(&directory.archive()?, filter, &mut out)
        }
    };
    match damages.and_then(|damages| Ok(out.flush().map(|()| damages)?)) {
        Ok(0) => Ok(()),
        Ok(damages) => Err(CommandError::Failed(format!("{damages} damaged places in the journal"))),
        // A reader that closed the pipe early has what it wanted: not a failure.
        Err(PrintError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(PrintError::Output(error)) => Err(CommandError::from_error(&error)),
        Err(PrintError::Journal(error)) => Err(CommandError::from_error(&error)),
    }
}

/// Why printing ended early.
enum PrintError {
    Journal(OpenError),
    Output(io::Error),
}

impl From<OpenError> for PrintError {
    fn from(error: OpenError) -> Self {
        Self::Journal(error)
    }
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl DirectoryArguments {
    fn archive(&self) -> Result<Archive, CommandError> {
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => settings(&lookup(self.config.as_ref()))?.data_dir.join("journal"),
        };
        let files = Files::read_only(&directory)
            .map_err(|e| CommandError::Failed(format!("no journal in {}: {e}", directory.display())))?;
        Archive::open(Arc::new(files)).map_err(|e| CommandError::from_error(&e))
    }
}

/// Prints the contents of each segment. Gives the number of damaged places.
fn inspect(archive: &Archive, print_groups: bool, out: &mut impl io::Write) -> Result<u64, PrintError> {
    writeln!(out, "journal {}", archive.id())?;
    let (mut damages, mut released) = (0, 0);
    for number in archive.segments()? {
        let Some(mut scan) = archive.scan(number)? else { continue };
        let mut sum = SegmentSummary::default();
        while let Some(found) = scan.next()? {
            match found {
                ScanItem::Damage { offset } => {
                    damages += 1;
                    writeln!(out, "segment {number}: DAMAGED at byte {offset}")?;
                }
                ScanItem::Group(group) => {
                    for entry in scan.entries() {
                        sum.entry(entry.entry.kind, entry.entry.received_at_us);
                    }
                    sum.group(&group);
                    released = group.released.0;
                    if print_groups {
                        let GroupView { offset, number, position, end, entries, released, tag } = group;
                        writeln!(
                            out,
                            "  group {number} at byte {offset}: {entries} entries, positions {position} to {end}, released {released}, tag {tag:016x}"
                        )?;
                    }
                }
            }
        }
        let SegmentSummary { groups, kinds: [frames, undecodable, messages], positions, times } = sum;
        write!(out, "segment {number}: {} KiB, {groups} groups", scan.size() / 1024)?;
        if let Some((begin, end)) = positions {
            write!(
                out,
                ", positions {begin} to {end}, {frames} frames, {undecodable} undecodable, {messages} messages"
            )?;
        }
        if let Some((first, last)) = times {
            write!(out, ", received {} to {}", format_time(first), format_time(last))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "released to {released}, {damages} damaged places")?;
    Ok(damages)
}

#[derive(Default)]
struct SegmentSummary {
    groups: u64,
    /// Entries of each kind.
    kinds: [u64; 3],
    positions: Option<(u64, u64)>,
    times: Option<(i64, i64)>,
}

impl SegmentSummary {
    fn entry(&mut self, kind: EntryKind, us: i64) {
        let [frames, undecodable, messages] = &mut self.kinds;
        *match kind {
            EntryKind::Frame => frames,
            EntryKind::Undecodable => undecodable,
            EntryKind::Message => messages,
        } += 1;
        let (first, last) = self.times.unwrap_or((us, us));
        self.times = Some((first.min(us), last.max(us)));
    }

    fn group(&mut self, group: &GroupView) {
        self.groups += 1;
        let begin = self.positions.map_or(group.position.0, |(begin, _)| begin);
        self.positions = Some((begin, group.end.0));
    }
}

/// Prints the matching entries as complete frames. Gives the number of damaged places.
fn dump(archive: &Archive, filter: Filter, out: &mut impl io::Write) -> Result<u64, PrintError> {
    let mut entries = archive.entries(filter)?;
    let mut line = String::new();
    while let Some(entry) = entries.next()? {
        let data = entry.entry.bytes;
        // The journal holds data fields only. Preamble, length and checksum follow from them.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
        let sum = u32::from(crc16(data)).to_be_bytes();
        line.clear();
        for byte in [[0; 4].as_slice(), &length, data, &sum].into_iter().flatten() {
            for nibble in [byte >> 4, byte & 0xF] {
                line.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
            }
        }
        writeln!(out, "{line}")?;
    }
    Ok(entries.damages())
}

fn micros(time: SystemTime) -> i64 {
    let after = |since: Duration| i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => after(since),
        Err(before) => -after(before.duration()),
    }
}
