//! The journal's files, read beside a running service: whole, without a gap, and held by one process.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::finding::{Check, Finding, size};
use crate::ingest::drain::GapFile;
use odograph_journal::JournalId;
use odograph_journal::{Archive, Files, OpenError, ScanItem};

/// What stands there.
#[derive(Debug)]
pub(super) struct JournalFacts {
    /// `None` where there is no journal yet.
    pub(super) kept: Option<ArchivedEntries>,
    /// It is there and cannot be opened.
    broken: Option<String>,
    /// Noted gaps, one a line.
    gaps: Result<String, String>,
    /// A process has it open.
    held: bool,
}

/// A journal that can be read.
#[derive(Debug)]
pub(super) struct ArchivedEntries {
    pub(super) id: JournalId,
    /// Behind its last entry.
    pub(super) end: u64,
    /// The newest receive time, microseconds.
    pub(super) newest_us: Option<i64>,
    segments: usize,
    /// Of these, newest first.
    looked_at: usize,
    damages: u64,
}

impl Default for JournalFacts {
    fn default() -> Self {
        Self { kept: None, broken: None, gaps: Ok(String::new()), held: false }
    }
}

/// Reads newest segments first, until it takes too long.
pub(super) fn read(data_dir: &Path) -> JournalFacts {
    let directory = data_dir.join("journal");
    let noted = Files::read_only(data_dir).and_then(|files| GapFile::new(Arc::new(files)).read());
    let gaps = match noted {
        // Nothing was ever kept there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        noted => noted.map_err(|error| error.to_string()),
    };
    let held = is_held(&directory.join("lock"));
    if !directory.exists() {
        return JournalFacts { gaps, held, ..JournalFacts::default() };
    }
    let files = match Files::read_only(&directory) {
        Ok(files) => files,
        Err(error) => return JournalFacts { broken: Some(error.to_string()), gaps, held, kept: None },
    };
    match Archive::open(Arc::new(files)).and_then(|archive| kept_entries(&archive)) {
        Ok(kept) => JournalFacts { kept: Some(kept), broken: None, gaps, held },
        // A directory that was made and not used.
        Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            JournalFacts { gaps, held, ..JournalFacts::default() }
        }
        Err(error) => JournalFacts { broken: Some(chain(&error)), gaps, held, kept: None },
    }
}

fn kept_entries(archive: &Archive) -> Result<ArchivedEntries, OpenError> {
    let (begun, numbers) = (Instant::now(), archive.segments()?);
    let mut kept = ArchivedEntries {
        id: archive.id(),
        end: 0,
        newest_us: None,
        segments: numbers.len(),
        looked_at: 0,
        damages: 0,
    };
    for number in numbers.into_iter().rev() {
        if begun.elapsed() > LONG_ENOUGH {
            break;
        }
        let Some(mut scan) = archive.scan(number)? else { continue };
        while let Some(found) = scan.next()? {
            match found {
                ScanItem::Damage { .. } => kept.damages += 1,
                ScanItem::Group(group) => {
                    kept.end = kept.end.max(group.end.0);
                    let newest = scan.entries().map(|entry| entry.entry.received_at_us).max();
                    kept.newest_us = kept.newest_us.max(newest);
                }
            }
            if begun.elapsed() > LONG_ENOUGH {
                return Ok(kept);
            }
        }
        kept.looked_at += 1;
    }
    Ok(kept)
}

/// Asked of the kernel: taking the lock for a moment could keep a service from starting.
fn is_held(lock: &Path) -> bool {
    let Ok(file) = fs::metadata(lock) else { return false };
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    names_inode(&locks, file.ino())
}

fn names_inode(locks: &str, inode: u64) -> bool {
    let of_line = |line: &str| -> Option<u64> {
        let mut fields = line.split_whitespace().skip_while(|field| *field != "FLOCK");
        let place = fields.nth(4)?;
        place.rsplit(':').next()?.parse().ok()
    };
    locks.lines().any(|line| of_line(line) == Some(inode))
}

/// `max` is `None` where there is no journal by the settings.
pub(super) fn findings(facts: &JournalFacts, max: Option<u64>) -> Vec<Finding> {
    if max.is_none() {
        let left = facts.kept.as_ref().is_some_and(|kept| kept.end > 0);
        let found = "none: a tracker is answered after the commit (ODOGRAPH_ACK_AFTER=commit)";
        let whole = if left {
            let remedy = "if `odograph journal inspect` shows more than the database has, run once with ODOGRAPH_ACK_AFTER=journal";
            Check::Journal.note(format!("{found}, but an earlier one is in the data directory"), remedy)
        } else {
            Check::Journal.ok(found)
        };
        return vec![whole, gap(facts)];
    }
    vec![whole(facts), gap(facts)]
}

fn whole(facts: &JournalFacts) -> Finding {
    let check = Check::Journal;
    if let Some(error) = &facts.broken {
        return check.wrong(
            error,
            "`odograph journal inspect` shows more; run this as the service's user; do not delete the directory, it may hold what the database lacks",
        );
    }
    let held = if facts.held { "a service has it open" } else { "no service has it open" };
    let Some(kept) = &facts.kept else { return check.ok("none yet: the first start makes it") };
    let ArchivedEntries { segments, looked_at, damages, .. } = kept;
    if *damages > 0 {
        let remedy = "`odograph journal inspect` says where; `odograph serve --journal-recovery skip-damage` goes on without what \
                      is lost. Look at the disk: it lost what it had synced";
        return check.wrong(format!("{damages} damaged places in {looked_at} of {segments} segments"), remedy);
    }
    check.ok(format!("{looked_at} of {segments} segments read, whole; {held}"))
}

fn gap(facts: &JournalFacts) -> Finding {
    let remedy =
        "once you know what happened (an old backup restored, a segment deleted), `odograph serve --accept-gap`";
    match &facts.gaps {
        Ok(gaps) if gaps.is_empty() => Check::JournalGap.ok("none"),
        Ok(gaps) => Check::JournalGap.wrong(gaps.lines().collect::<Vec<_>>().join("; "), remedy),
        Err(error) => Check::JournalGap.unknown(format!("the file journal-gap cannot be read: {error}")),
    }
}

/// How much waits. `committed` is how far the database is, where it knows the journal.
pub(super) fn backlog(facts: &JournalFacts, max: Option<u64>, committed: Option<Result<u64, String>>) -> Finding {
    let check = Check::JournalBacklog;
    let (Some(max), Some(kept)) = (max, &facts.kept) else { return check.ok("no journal") };
    let committed = match committed {
        Some(Ok(committed)) => committed,
        Some(Err(error)) => return check.unknown(error),
        // It may be new, or its database is.
        None => 0,
    };
    let waiting = kept.end.saturating_sub(committed);
    let found = format!("{} wait for the database, of {}", size(waiting), size(max));
    let remedy = "see why the database does not keep up (`last-commit`, the service's log); when it is full trackers have to wait. A \
                  larger ODOGRAPH_JOURNAL_MAX_SIZE lasts longer";
    // Groups and segments take more room than their entries.
    match waiting.saturating_mul(100) / max.max(1) {
        0..50 => check.ok(found),
        50..80 => check.note(found, remedy),
        _ => check.wrong(found, remedy),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// A journal of so many bytes.
#[cfg(test)]
pub(super) fn sample(end: u64) -> (JournalFacts, JournalId) {
    let id = JournalId::random();
    let kept = ArchivedEntries { id, end, newest_us: None, segments: 3, looked_at: 3, damages: 0 };
    (JournalFacts { kept: Some(kept), ..JournalFacts::default() }, id)
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{Note, Ok as Fine, Unknown, Wrong};
    use super::*;

    fn facts(damages: u64, gaps: &str) -> JournalFacts {
        let (facts, _) = sample(100);
        let kept = facts.kept.map(|kept| ArchivedEntries { damages, ..kept });
        JournalFacts { kept, gaps: Ok(gaps.to_owned()), ..facts }
    }

    #[test]
    fn damage_and_gaps_are_wrong() {
        let statuses =
            |facts: &JournalFacts| findings(facts, Some(1 << 30)).into_iter().map(|f| f.status).collect::<Vec<_>>();
        assert_eq!(statuses(&facts(0, "")), [Fine, Fine]);
        assert_eq!(statuses(&facts(1, "")), [Wrong, Fine]);
        assert_eq!(statuses(&facts(0, "journal x: positions 1 to 5\n")), [Fine, Wrong]);
        assert_eq!(statuses(&JournalFacts { broken: Some("no".into()), kept: None, ..facts(0, "") }), [Wrong, Fine]);
        assert_eq!(findings(&facts(0, ""), None)[0].status, Note, "left over");
        assert_eq!(findings(&JournalFacts::default(), None)[0].status, Fine);
    }

    #[test]
    fn a_backlog_is_judged_by_the_room_that_is_left() {
        let status = |max, committed| backlog(&facts(0, ""), Some(max), committed).status;
        assert_eq!(status(1_000, Some(Ok(100))), Fine);
        assert_eq!(status(150, Some(Ok(0))), Note);
        assert_eq!(status(110, None), Wrong, "nothing of it was ever committed");
        assert_eq!(status(110, Some(Err("away".into()))), Unknown);
    }

    #[test]
    fn the_kernel_says_who_holds_a_lock() {
        let locks = "1: FLOCK  ADVISORY  WRITE 3541 fe:00:1314 0 EOF\n2: POSIX  ADVISORY  WRITE 77 fe:00:99 0 EOF\n\
                     3: -> FLOCK  ADVISORY  READ 12 00:2f:55 0 EOF\n";
        assert!(names_inode(locks, 1314) && names_inode(locks, 55));
        assert!(!names_inode(locks, 99) && !names_inode(locks, 314) && !names_inode("", 1));
    }
}
