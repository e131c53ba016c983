//! The data directory: whose it is, what it lies on, how fast that syncs, and whether the journal's bound fits.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, statfs, statvfs};

use super::finding::{Check, Finding, size};

/// What was found out about it.
pub(super) struct DirectoryFacts {
    path: PathBuf,
    /// Owner and mode; `None` where it is not there yet.
    there: Option<(u32, u32)>,
    /// Files in it that belong to somebody else.
    foreign: Option<String>,
    us: u32,
    writable: bool,
    kind: Result<u64, String>,
    /// Free bytes and free inodes.
    free: Result<(u64, u64), String>,
    /// Bytes of the journal's files.
    journal_bytes: u64,
    syncs: Result<Syncs, String>,
}

struct Syncs {
    median: Duration,
    longest: Duration,
}

/// Looks, and writes a small file for a moment where the directory is there.
pub(super) fn read(path: &Path) -> DirectoryFacts {
    let there = fs::metadata(path).ok().filter(fs::Metadata::is_dir);
    // What is not there yet is made in the nearest directory above.
    let near = path.ancestors().find(|above| above.is_dir()).filter(|near| !near.as_os_str().is_empty());
    let near = near.unwrap_or(Path::new("."));
    let us = rustix::process::geteuid().as_raw();
    let owner = there.as_ref().map(MetadataExt::uid);
    DirectoryFacts {
        path: path.to_owned(),
        there: there.as_ref().map(|there| (there.uid(), there.mode())),
        foreign: owner.and_then(|owner| foreign(path, owner)),
        us,
        writable: (there.is_some() || !path.exists()) && access(near, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        kind: statfs(near).map(|fs| u64::try_from(fs.f_type).unwrap_or(0)).map_err(|error| error.to_string()),
        free: statvfs(near)
            .map(|fs| (fs.f_bavail.saturating_mul(fs.f_frsize), if fs.f_files == 0 { u64::MAX } else { fs.f_favail }))
            .map_err(|error| error.to_string()),
        journal_bytes: bytes_in(&path.join("journal")),
        syncs: match there {
            Some(_) => time_syncs(path).map_err(|error| error.to_string()),
            None => Err("the data directory is not there yet".to_owned()),
        },
    }
}

/// The first of journal and embedded store that the directory's owner does not own: left by a run as root.
fn foreign(path: &Path, owner: u32) -> Option<String> {
    let names = ["journal", "journal/lock", "journal/identity", "odograph.sqlite", "wrong-checksum"];
    let is_foreign = |name: &&str| fs::metadata(path.join(name)).is_ok_and(|file| file.uid() != owner);
    names.into_iter().find(is_foreign).map(str::to_owned)
}

fn bytes_in(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks().saturating_mul(512)).sum()
}

/// Writes into a file that has its length already, as the journal does.
fn time_syncs(directory: &Path) -> io::Result<Syncs> {
    let path = directory.join(format!(".odograph-check-{}", std::process::id()));
    let file = OpenOptions::new().create_new(true).write(true).open(&path)?;
    let timed = (|| {
        file.write_all_at(&vec![0; BLOCK * SYNCS], 0)?;
        file.sync_all()?;
        let (begun, mut took) = (Instant::now(), Vec::with_capacity(SYNCS));
        for (at, filler) in (0..SYNCS).zip(1_u8..) {
            let at = u64::try_from(at * BLOCK).unwrap_or(0);
            let one = Instant::now();
            file.write_all_at(&[filler; BLOCK], at)?;
            file.sync_data()?;
            took.push(one.elapsed());
            if begun.elapsed() > LONG_ENOUGH {
                break;
            }
        }
        took.sort_unstable();
        Ok(Syncs {
            median: took.get(took.len() / 2).copied().unwrap_or_default(),
            longest: took.last().copied().unwrap_or_default(),
        })
    })();
    fs::remove_file(&path)?;
    timed
}

/// `journal_max` is `None` where there is no journal; `store` says that the embedded store is there.
pub(super) fn findings(facts: &DirectoryFacts, journal_max: Option<u64>, store: bool) -> Vec<Finding> {
    vec![
        directory(facts),
        file_system(&facts.kind, journal_max.is_some() || store),
        syncs(&facts.syncs, journal_max.is_some() || store),
        room(&facts.free, facts.journal_bytes, journal_max),
    ]
}

fn directory(facts: &DirectoryFacts) -> Finding {
    let shown = facts.path.display().to_string();
    let check = Check::DataDir;
    if facts.there.is_none() && facts.path.exists() {
        return check.wrong(format!("{shown} is no directory"), "name another one in ODOGRAPH_DATA_DIR");
    }
    if !facts.writable {
        let remedy = format!("make it for the service's user: install -d -o USER -m 700 {shown}");
        return check.wrong(format!("{shown} cannot be written to by uid {}", facts.us), remedy);
    }
    let Some((owner, mode)) = facts.there else {
        return check
            .note(format!("{shown} is not there yet"), "`odograph serve` makes it; nothing to do for a new one");
    };
    if let Some(name) = &facts.foreign {
        return check.wrong(
            format!("{shown}/{name} does not belong to the directory's owner, uid {owner}"),
            format!("the service was run as another user once: chown -R {owner} {shown}"),
        );
    }
    if mode & 0o002 != 0 {
        return check.wrong(format!("everybody may write to {shown}"), format!("chmod 700 {shown}"));
    }
    if mode & 0o007 != 0 {
        return check.note(
            format!("every user of this machine may look into {shown}, which has positions and IMEIs"),
            format!("chmod -R o= {shown}"),
        );
    }
    if facts.us != owner {
        let remedy = "run this as the service's user, so that it sees what the service sees";
        return check.note(format!("{shown} belongs to uid {owner}, and this runs as uid {}", facts.us), remedy);
    }
    check.ok(shown)
}

fn file_system(kind: &Result<u64, String>, matters: bool) -> Finding {
    let check = Check::FileSystem;
    let kind = match kind {
        Ok(kind) => *kind,
        Err(error) => return check.unknown(error),
    };
    let name = KINDS.iter().find(|(number, ..)| *number == kind);
    match name {
        Some((_, name, Keeps::No(why))) if matters => check.wrong(
            format!("{name}: {why}"),
            "put ODOGRAPH_DATA_DIR on a disk that stays (in a container: a volume), or keep nothing there: ODOGRAPH_ACK_AFTER=commit \
             and a database server",
        ),
        Some((_, name, Keeps::Perhaps)) if matters => check.note(
            format!("{name}: whether a sync survives a power cut is up to its server"),
            "a local disk for ODOGRAPH_DATA_DIR is safer and faster; only one machine may use it",
        ),
        Some((_, name, _)) => check.ok(*name),
        None => check.ok(format!("type {kind:x}")),
    }
}

fn syncs(syncs: &Result<Syncs, String>, matters: bool) -> Finding {
    let check = Check::DiskSync;
    let Syncs { median, longest } = match syncs {
        Ok(syncs) => syncs,
        Err(error) => return check.unknown(error),
    };
    let us = |duration: &Duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3);
    let found = format!("a write and its sync take {}, {} at the longest", us(median), us(longest));
    if !matters {
        return check.ok(found);
    }
    if *median > SLOW {
        let remedy = "every answer waits for one: a faster disk, or one that others use less, answers trackers sooner";
        return check.note(found, remedy);
    }
    if *median < SUSPICIOUS {
        let remedy =
            "no disk is so fast: see that nothing switches syncing off (eatmydata, cache=unsafe of a virtual disk)";
        return check.note(found, remedy);
    }
    check.ok(found)
}

fn room(free: &Result<(u64, u64), String>, journal_bytes: u64, journal_max: Option<u64>) -> Finding {
    let check = Check::DiskRoom;
    let (free, inodes) = match free {
        Ok(free) => *free,
        Err(error) => return check.unknown(error),
    };
    if inodes < FEW_INODES {
        return check.wrong(format!("{inodes} inodes are free"), "delete small files, or make the file system anew");
    }
    let Some(max) = journal_max else { return check.ok(format!("{} are free", size(free))) };
    let grows = max.saturating_sub(journal_bytes);
    let found = format!("{} are free, and the journal may still grow by {}", size(free), size(grows));
    let remedy = format!(
        "make room, or bound the journal: ODOGRAPH_JOURNAL_MAX_SIZE below {}",
        size(free.saturating_add(journal_bytes))
    );
    if free < grows {
        check.wrong(found, remedy)
    } else if free < grows.saturating_add(max / 10) {
        check.note(found, remedy)
    } else {
        check.ok(found)
    }
}

/// Whether a file system has tomorrow what it synced today.
#[derive(Clone, Copy)]
enum Keeps {
    Yes,
    No(&'static str),
    Perhaps,
}

const MEMORY: Keeps = Keeps::No("it is memory, and gone with the next restart of the machine");
/// Magic numbers of statfs(2).
const KINDS: [(u64, &str, Keeps); 13] = [
    (0x0102_1994, "tmpfs", MEMORY),
    (0x8584_58F6, "ramfs", MEMORY),
    (0x794C_7630, "overlay", Keeps::No("a container's own layer, and gone with the container")),
    (0xEF53, "ext4", Keeps::Yes),
    (0x5846_5342, "xfs", Keeps::Yes),
    (0x9123_683E, "btrfs", Keeps::Yes),
    (0x2FC1_2FC1, "zfs", Keeps::Yes),
    (0xF2F5_2010, "f2fs", Keeps::Yes),
    (0x6969, "nfs", Keeps::Perhaps),
    (0xFF53_4D42, "cifs", Keeps::Perhaps),
    (0xFE53_4D42, "smb2", Keeps::Perhaps),
    (0x0102_1997, "9p", Keeps::Perhaps),
    (0x6573_5546, "fuse", Keeps::Perhaps),
];
const BLOCK: usize = 4096;
const SYNCS: usize = 20;
const LONG_ENOUGH: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_millis(20);
/// The fastest drives with a battery need twice as long.
const SUSPICIOUS: Duration = Duration::from_micros(10);
const FEW_INODES: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{Note, Ok as Fine, Wrong};
    use super::*;

    #[test]
    fn memory_and_container_layers_keep_no_journal() {
        for (kind, status) in [(0x0102_1994, Wrong), (0x794C_7630, Wrong), (0xEF53, Fine), (0x6969, Note), (1, Fine)] {
            assert_eq!(file_system(&Ok(kind), true).status, status, "{kind:x}");
            assert_eq!(file_system(&Ok(kind), false).status, Fine, "without a journal it does not matter");
        }
    }

    #[test]
    fn a_sync_takes_some_time_and_not_too_much() {
        let took = |us| Ok(Syncs { median: Duration::from_micros(us), longest: Duration::from_micros(2 * us) });
        for (us, status) in [(2, Note), (300, Fine), (19_999, Fine), (20_001, Note)] {
            assert_eq!(syncs(&took(us), true).status, status, "{us}");
        }
        assert_eq!(syncs(&took(2), false).status, Fine);
    }

    #[test]
    fn the_journal_has_to_fit_as_far_as_it_may_grow() {
        let gib = 1 << 30;
        let room = |free, used| room(&Ok((free, u64::MAX)), used, Some(4 * gib)).status;
        assert_eq!((room(5 * gib, 0), room(4 * gib, 0), room(3 * gib, 0)), (Fine, Note, Wrong));
        assert_eq!(room(gib, 4 * gib), Fine, "it will not grow");
        assert_eq!(super::room(&Ok((gib, 10)), 0, None).status, Wrong);
    }

    #[test]
    fn the_directory_has_to_be_ours() {
        let facts = |there, writable, foreign: Option<&str>| DirectoryFacts {
            path: "/nonexistent/odograph".into(),
            there,
            foreign: foreign.map(str::to_owned),
            us: 7,
            writable,
            kind: Ok(0),
            free: Ok((0, 0)),
            journal_bytes: 0,
            syncs: Err(String::new()),
        };
        for (there, writable, foreign, status) in [
            (Some((7, 0o700)), true, None, Fine),
            (Some((7, 0o700)), false, None, Wrong),
            (Some((7, 0o777)), true, None, Wrong),
            (Some((7, 0o755)), true, None, Note),
            (Some((7, 0o750)), true, None, Fine),
            (Some((8, 0o700)), true, None, Note),
            (Some((7, 0o700)), true, Some("journal/lock"), Wrong),
            (None, true, None, Note),
            (None, false, None, Wrong),
        ] {
            assert_eq!(directory(&facts(there, writable, foreign)).status, status, "{there:?} {writable} {foreign:?}");
        }
    }

    #[test]
    fn looking_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let facts = read(directory.path());
        assert!(facts.writable && facts.there.is_some() && facts.free.is_ok() && facts.kind.is_ok());
        assert!(facts.syncs.is_ok_and(|syncs| syncs.median <= syncs.longest));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let missing = read(&directory.path().join("a/b"));
        assert!(missing.writable && missing.there.is_none() && missing.syncs.is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is made");
    }
}
