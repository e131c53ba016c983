//! The journal: an append-only log that makes "accepted" mean something.
//!
//! > An entry has a receipt only after the sync that makes it survive a power cut.
//!
//! ```text
//! sessions ─ Appender ─► Queue: the next group ─► Writer ─► Log ─► segment file, sync ─► receipts ─► sessions
//!                                                            │
//! drain ◄──────── Reader, never past the sync ◄───── SharedCatalog: release, rewind, compare
//! replay, inspect ◄── Archive, straight from the files
//! ```
//!
//! It stores labelled bytes in order: a device, a kind, a count and a time go with each entry, and the journal never looks into
//! the bytes. It knows neither sockets nor a database.
//!
//! # Who owns what
//!
//! - `Catalog` is the truth about what the journal holds, not about what is still to be stored: that is the database's checkpoint.
//!   Plain state, no disk, no clock. [`SharedCatalog`] is the same behind one
//!   lock, for readers, the drain and the writer.
//! - [`Log`] is the only writer of segments: groups in, one sync each. Time, randomness and disk ([`Storage`]) come from outside.
//! - [`Journal`] runs a [`Log`] on two threads: a writer, and a maintenance thread that prepares and removes segments.
//! - `Queue` holds what sessions appended and the writer has not taken; [`Appender`] and [`Ticket`] are its public face.
//! - [`Archive`] reads the files of a journal that another process may have open.
//!
//! # How it behaves
//!
//! The drain releases what is committed. Released entries stay for replay as long as there is room and time. *Full* (the limit is
//! reached, or the file system has no space) is a state that ends by itself. Any other failed write and every failed sync
//! poisons the journal: nothing is retried, the process ends and opens the journal again.
//!
//! # Reading order
//!
//! `format` (bytes on disk), `group`, `segment`, `catalog`, `log`, `queue`, `writer`, `threads`, `journal`; then `recovery` (opening after a
//! crash), `history` (does a checkpoint belong to this journal?), `reader`, `archive`.

mod appender;
mod archive;
mod catalog;
mod entry;
mod error;
mod files;
mod format;
mod group;
mod history;
mod identity;
mod journal;
mod label;
mod limits;
mod log;
mod opening_draw;
mod options;
mod position;
mod queue;
mod reader;
mod recovery;
mod relay;
mod room;
mod segment;
mod segment_tasks;
mod shared_catalog;
mod status;
mod storage;
mod threads;
mod ticket;
mod wall_clock;
mod writer;

pub use appender::Appender;
pub use archive::{Archive, Entries, Filter, GroupView, Scan, ScanItem};
pub use entry::{ENTRY_HEADER, Entry, EntryKind, NewEntry};
pub use error::{AppendError, OpenError, Poisoned, ReadError};
pub use files::Files;
pub use group::{GROUP_HEADER, GROUP_LIMIT, Group, SECTOR};
pub use history::{History, HistoryMatch, HistoryMismatch};
pub use journal::Journal;
pub use label::VERSION;
pub use limits::{InvalidLimits, Limits};
pub use log::{Log, LogOutcome, Synced};
pub use opening_draw::OpeningDraw;
pub use options::{Options, RecoveryMode};
pub use position::{JournalId, Mark, Position};
pub use reader::{Reader, Ready};
pub use recovery::OpeningReport;
pub use relay::Relay;
pub use room::Room;
pub use shared_catalog::SharedCatalog;
pub use status::{FullCause, JournalState, Status};
pub use storage::{Storage, StorageFile};
pub use ticket::{Receipt, Ticket};
pub use wall_clock::{WallClock, unix_now_us};
pub use writer::{OnSync, Writer, WriterTurn};
