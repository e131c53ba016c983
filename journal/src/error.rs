//! What can go wrong with a journal, and who must act.

use std::io;
use std::sync::Arc;

use crate::position::Position;

/// A journal that cannot be opened. Nothing that it holds was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on the directory.
    #[error("another process has this journal open")]
    Locked,
    /// The file system refuses.
    #[error("{doing} `{name}` in the journal directory")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another version of this program wrote the journal.
    #[error(
        "`{name}` in the journal directory has format version {version}: open it with the odograph that wrote it, let that drain it, and start this one on an empty directory"
    )]
    OtherVersion {
        /// The file.
        name: String,
        /// Its version.
        version: u32,
    },
    /// A file that has a segment's name belongs to something else.
    #[error("`{name}` does not belong to this journal ({reason}): move it out of the journal directory")]
    Foreign {
        /// The file.
        name: String,
        /// What shows it.
        reason: &'static str,
    },
    /// What was durable is not there any more.
    #[error(
        "`{name}` is damaged at byte {offset}: {what}. Put the directory back from a copy, or open it with the recovery mode \
         `skip-damage`, which goes on without the entries that are lost"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
        /// How it shows.
        what: &'static str,
    },
    /// The journal failed while it was being opened.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

impl OpenError {
    pub(super) fn io(doing: &'static str, name: &str, source: io::Error) -> Self {
        Self::Io { doing, name: name.to_owned(), source }
    }
}

/// A write or a sync failed: nothing is known of what the disk holds. Nothing is accepted any more; the process must end and
/// open the journal again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the journal failed while {doing}")]
pub struct Poisoned {
    /// What was being done.
    pub doing: &'static str,
    /// The cause.
    #[source]
    pub source: Arc<io::Error>,
}

impl Poisoned {
    pub(super) fn new(doing: &'static str, source: io::Error) -> Self {
        Self { doing, source: Arc::new(source) }
    }
}

/// An entry that is not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// No group can hold it.
    #[error("an entry of {bytes} bytes is larger than a group may be")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// There is no room now: see [`JournalState`](super::JournalState). Waiting helps.
    #[error("the journal has no room now")]
    NoRoom,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
    /// The journal failed.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// An entry that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position is outside of what is kept.
    #[error("position {wanted} is not in the journal, which holds {begin} to {end}")]
    NotKept {
        /// What was asked for.
        wanted: Position,
        /// Where the journal begins.
        begin: Position,
        /// Where it ends.
        end: Position,
    },
    /// No entry begins there.
    #[error("no entry begins at position {wanted}")]
    NoEntry {
        /// What was asked for.
        wanted: Position,
    },
    /// What was durable is not there any more.
    #[error("segment {segment} is damaged at byte {offset}")]
    Damaged {
        /// The segment's number.
        segment: u64,
        /// Where.
        offset: u64,
    },
    /// The file system refuses.
    #[error("reading segment {segment}")]
    Io {
        /// The segment's number.
        segment: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The journal failed, and everything before was read.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}
