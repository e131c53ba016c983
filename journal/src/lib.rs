//! The journal: an append-only log that makes "accepted" mean something.
//!
//! > There is a receipt for an entry only after the sync that makes it survive a power cut.
//!
//! ```text
//! sessions ─ Appender ─► queue: one group gathers ─► writer: Log ─► segment file, sync ─► receipts ─► sessions
//!                                                                        │
//! drain ◄──────────────── Reader, never past the sync ◄──────────────────┤ Contents: release, rewind, compare
//! replay, inspect ◄────── Archive, beside it all ◄───────────────────────┘
//! ```
//!
//! It stores opaque bytes in order and knows neither protocol nor database. [`Log`] is the whole of it without threads: groups in,
//! one sync each, with time, randomness and disk ([`Storage`]) passed in. [`Journal`] puts two threads around it: a writer, and a
//! keeper that makes and gives away segments. What is committed is released by the drain, and kept as long as there is room and
//! time. Full (by its bound or by the file system) is a state that ends by itself; any other failed write and every failed sync
//! poisons: nothing is tried again, the process ends and opens the journal anew.
//!
//! # What it asks of a disk
//!
//! What was written and synced stays. Of a sector that was being written when power went, the old bytes, the new ones or a mix are
//! there; bytes that were equal before and after are unharmed. Nothing is said about the order of what was not synced.
//!
//! # Format, version 1
//!
//! Numbers are little-endian; CRC is CRC-32 (ISO-HDLC, the one of zlib). A directory holds
//!
//! | file | what |
//! |---|---|
//! | `identity` | a label: magic `odojrnl\0`; content: origin (16 bytes), id (16 bytes) |
//! | `NNNNNNNNNNNNNNNNNNNN.seg` | segment number N in 20 decimal digits, from 1; numbers are never used twice |
//! | `lock` | locked (`flock`) by the process that has the journal open; empty |
//! | `identity.new`, `spare.tmp` | left over from a crash; mean nothing |
//!
//! Every other file is ignored. The *origin* is drawn when the journal is made and never changes. The *id* is the name that the
//! database knows, and is drawn anew when the journal cannot vouch for its past.
//!
//! A **label** is 52 bytes and the same in every version: magic (8), format version (u32), zero (4), content (32), CRC of these 48
//! bytes (u32).
//!
//! A **segment** begins with a label: magic `odoseg\0\0`; content: origin (16), segment number (u64), length of the file (u64). The
//! rest of the first 512 bytes is not used. Groups follow, each at the next multiple of 512. What lies behind the last group may
//! be anything: zeros, or what an earlier use of the file left there.
//!
//! A **group** is what one sync made durable. Group 0 of a segment, too, is written only when everything before is durable.
//!
//! | at | | |
//! |---|---|---|
//! | 0 | 4 bytes | magic `ODG1` |
//! | 4 | u32 | CRC of everything behind it: bytes 8 to 80 + length |
//! | 8 | u32 | length: bytes of entries, at most 64 MiB |
//! | 12 | u32 | number of entries; may be 0 |
//! | 16 | 16 bytes | origin |
//! | 32 | u64 | segment number |
//! | 40 | u64 | group number in the segment, from 0 without gaps |
//! | 48 | u64 | position of the first entry |
//! | 56 | u64 | everything before this position was released when the group was written; a hint that may lag |
//! | 64 | i64 | tag of the opening that wrote the group: random, not 0 |
//! | 72 | i64 | tag of the opening that wrote the entry before the first one; 0 at position 0 |
//! | 80 | | entries, one after the other |
//!
//! An **entry** is 24 bytes and its content: length of the content (u32), kind (u8: 1 frame, 2 undecodable, 3 message), the count
//! that acknowledges it (u8), zero (2), IMEI as a number (u64), receive time in µs since 1970-01-01 UTC (i64), content. The content is
//! the data field of the frame as it came, from codec id to second count.
//!
//! **Positions** count bytes of entries, headers of entries included, over the journal's whole life: an entry at position p
//! of stored length n is followed by the one at p + n, across groups and segments, up to 2^63 − 1.
//!
//! **To read**: go through the segments in the order of their numbers, and in each from byte 512. A group counts if magic, CRC,
//! origin, segment and group number are right; the segment ends at the first place where none does. Each group begins at the position
//! where the one before it ended. It is *damage* if a group does not, or if behind a place without a right group another one of this
//! segment follows; else the journal ends there, and what follows is a group that was never promised.

mod archive;
mod catalog;
mod chores;
mod contents;
mod entry;
mod error;
mod files;
mod group;
mod history;
mod identity;
mod label;
mod limits;
mod log;
mod open;
mod position;
mod queue;
mod reader;
mod recovery;
mod relay;
mod room;
mod segment;
mod status;
mod storage;
mod wall_clock;
mod writer;

pub use archive::{Archive, Entries, Filter, Found, GroupView, Scan};
pub use contents::Contents;
pub use entry::{ENTRY_HEADER, Entry, Kind, NewEntry};
pub use error::{AppendError, OpenError, Poisoned, ReadError};
pub use files::Files;
pub use group::{GROUP_HEADER, GROUP_LIMIT, Group, SECTOR};
pub use history::{History, Standing, Why};
pub use label::VERSION;
pub use limits::{InvalidLimits, Limits};
pub use log::{Log, Outcome, Synced};
pub use open::{Draw, Journal, Options};
pub use position::{JournalId, Mark, Position};
pub use queue::{Appender, Receipt, Ticket};
pub use reader::{Reader, Ready};
pub use recovery::{Opened, RecoveryMode};
pub use relay::Relay;
pub use room::Room;
pub use status::{Full, State, Status};
pub use storage::{Storage, StorageFile};
pub use wall_clock::{WallClock, system_us};
pub use writer::{OnSync, Turn, Writer};
