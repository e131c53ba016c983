//! What a check says: one line for the operator, and what to do about it.

use std::time::Duration;

use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it has to be.
    Ok,
    /// Works, and somebody should know.
    Note,
    /// Has to be mended: records may be lost, late, or not taken at all.
    Wrong,
    /// Could not be found out; another finding says why.
    Unknown,
}

/// What was found, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    #[serde(rename = "name")]
    pub check: Check,
    /// How it came out.
    #[serde(rename = "verdict")]
    pub status: CheckStatus,
    /// What is there, without secrets.
    pub found: String,
    /// What to do; there for every note and everything wrong.
    pub remedy: Option<String>,
}

macro_rules! checks {
    ($($(#[$about:meta])* $variant:ident = $name:literal,)*) => {
        /// What is looked at, in the order of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Check { $($(#[$about])* $variant,)* }

        impl Check {
            /// Every check.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in the output and in `docs/check.md`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

checks! {
    /// Settings can be read.
    Settings = "settings",
    /// Trackers can reach the listener.
    Listen = "listen",
    /// Open files allow the connections.
    FileLimit = "file-limit",
    /// This machine's clock.
    Clock = "clock",
    /// The data directory: there, ours, writable.
    DataDir = "data-dir",
    /// What kind of file system it is on.
    FileSystem = "file-system",
    /// How long a sync takes there.
    DiskSync = "disk-sync",
    /// Whether the journal's bound fits the disk.
    DiskRoom = "disk-room",
    /// The journal can be read and is whole.
    Journal = "journal",
    /// Nothing of it was lost before it reached the database.
    JournalGap = "journal-gap",
    /// How much of it waits for the database.
    JournalBacklog = "journal-backlog",
    /// The running service.
    Service = "service",
    /// Open files of the running service.
    ServiceFiles = "service-files",
    /// The database answers and takes writes.
    Database = "database",
    /// The server's clock against this machine's.
    DatabaseClock = "database-clock",
    /// Whether the way to the server is encrypted.
    DatabaseTls = "database-tls",
    /// The server syncs at all.
    Fsync = "fsync",
    /// The server survives torn pages.
    FullPageWrites = "full-page-writes",
    /// A commit that was answered is durable.
    SynchronousCommit = "synchronous-commit",
    /// Dead rows are cleared away.
    Autovacuum = "autovacuum",
    /// The server has connections left.
    Connections = "connections",
    /// How large the database is.
    DatabaseDisk = "database-disk",
    /// Every migration is applied.
    Schema = "schema",
    /// The role may do what `serve` does.
    Privileges = "privileges",
    /// What this build of TimescaleDB lacks, and what that costs.
    Licence = "licence",
    /// The number of chunks.
    Chunks = "chunks",
    /// Their interval against the measured rate.
    ChunkInterval = "chunk-interval",
    /// Background jobs of TimescaleDB.
    Jobs = "jobs",
    /// How long positions are kept.
    Retention = "retention",
    /// The last commit, and whether it keeps up.
    LastCommit = "last-commit",
    /// What was quarantined lately.
    Quarantine = "quarantine",
    /// The triggers beside Directus' tables.
    FlagTables = "flag-tables",
    /// Marshals' edits on their way to the stream.
    FlagOutbox = "flag-outbox",
    /// Flags that positions do not follow yet.
    FlagLedger = "flag-ledger",
    /// Corrections on their way to timing services.
    Corrections = "corrections",
    /// The list of devices.
    Devices = "devices",
    /// Redis answers.
    Redis = "redis",
    /// It gives nothing away when memory is short.
    RedisMemory = "redis-memory",
    /// It has its streams again after a restart.
    RedisPersistence = "redis-persistence",
    /// The stream of flags has the name that its writer uses.
    FlagStream = "flag-stream",
    /// The consumer group keeps up.
    FlagGroup = "flag-group",
    /// Flags that could not be read.
    DeadLetters = "dead-letters",
}

impl Serialize for Check {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Check {
    pub(super) fn ok(self, found: impl AsRef<str>) -> Finding {
        self.finding(CheckStatus::Ok, found.as_ref(), None)
    }

    pub(super) fn note(self, found: impl AsRef<str>, remedy: impl AsRef<str>) -> Finding {
        self.finding(CheckStatus::Note, found.as_ref(), Some(remedy.as_ref()))
    }

    pub(super) fn wrong(self, found: impl AsRef<str>, remedy: impl AsRef<str>) -> Finding {
        self.finding(CheckStatus::Wrong, found.as_ref(), Some(remedy.as_ref()))
    }

    /// What helps stands with the finding that is the cause.
    pub(super) fn unknown(self, why: impl AsRef<str>) -> Finding {
        let why = why.as_ref().split_once("; ").map_or(why.as_ref(), |(why, _)| why);
        self.finding(CheckStatus::Unknown, why, None)
    }

    fn finding(self, status: CheckStatus, found: &str, remedy: Option<&str>) -> Finding {
        Finding { check: self, status, found: one_line(found), remedy: remedy.map(one_line) }
    }
}

/// Servers say what they like; a finding stays one line, and a bounded one.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

/// Bytes for people.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A duration for people: its two largest units, or milliseconds.
pub(super) fn span(duration: Duration) -> String {
    let shown = match duration.as_secs() {
        0 => Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(0)),
        seconds @ 1..3_600 => Duration::from_secs(seconds),
        seconds @ 3_600..86_400 => Duration::from_secs(seconds / 60 * 60),
        seconds => Duration::from_secs(seconds / 3_600 * 3_600),
    };
    humantime::format_duration(shown).to_string()
}

const LONGEST: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_a_server_says() {
        let found = Check::Database.wrong(format!("a\nb\u{1b}[31m{}", "x".repeat(1_000)), "mend it");
        assert!(!found.found.chars().any(char::is_control) && found.found.chars().count() == LONGEST + 1);
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(
            (&json["name"], &json["verdict"], &json["remedy"]),
            (&"database".into(), &"wrong".into(), &"mend it".into())
        );
    }

    #[test]
    fn sizes_and_spans_are_for_people() {
        assert_eq!((size(1_536), size(7), size(4 << 30)), ("1.5 KiB".into(), "7 B".into(), "4.0 GiB".into()));
        assert_eq!(span(Duration::from_millis(12)), "12ms");
        assert_eq!(span(Duration::from_secs(3_661)), "1h 1m");
        assert_eq!(span(Duration::from_secs(90_061)), "1day 1h");
    }
}
