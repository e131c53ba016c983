//! The format on disk, version 2, byte for byte; version 1 is read as well. `tests/format.rs` reads the sample with a reader written from this page alone.
//!
//! # What the journal needs from a disk
//!
//! Data that was written and synced stays. If power fails during a write, a sector holds its old bytes, its new bytes or a mix;
//! bytes that were equal before and after stay intact. Writes that were not synced may reach the disk in any order.
//!
//! # Directory
//!
//! Numbers are little-endian. CRC is CRC-32 (ISO-HDLC, the one of zlib). A directory holds
//!
//! | file | content |
//! |---|---|
//! | `identity` | a label: magic `odojrnl\0`; content: origin (16 bytes), id (16 bytes) |
//! | `NNNNNNNNNNNNNNNNNNNN.seg` | segment number N in 20 decimal digits, from 1; no number is used twice |
//! | `lock` | locked (`flock`) by the process that has the journal open, together with the directory itself; empty |
//! | `identity.new`, `spare.tmp` | left over from a crash; without meaning |
//!
//! Readers ignore every other file. The *origin* is drawn when the journal is created and never changes. The *id* is the name that
//! the database knows. The journal draws a new one when it cannot vouch for its past.
//!
//! # Label
//!
//! A label is 52 bytes and the same in every version: magic (8), format version (u32: 1 or 2), zero (4), content (32), CRC of these 48
//! bytes (u32).
//!
//! # Segment
//!
//! A segment begins with a label: magic `odoseg\0\0`; content: origin (16), segment number (u64), length of the file (u64). The
//! rest of the first 512 bytes is unused. Groups follow, each at the next multiple of 512. The space after the last group may
//! hold anything: zeros, or what an earlier use of the file left there.
//!
//! # Group
//!
//! A group is what one sync made durable. Every group, also group 0 of a segment, is written only when everything before it is
//! durable.
//!
//! | at | | |
//! |---|---|---|
//! | 0 | 4 bytes | magic `ODG2`; in version 1 `ODG1` |
//! | 4 | u32 | CRC of everything after it: bytes 8 to 80 + length |
//! | 8 | u32 | length: bytes of entries, at most 64 MiB |
//! | 12 | u32 | number of entries; may be 0 |
//! | 16 | 16 bytes | origin |
//! | 32 | u64 | segment number |
//! | 40 | u64 | group number in the segment, from 0 without gaps |
//! | 48 | u64 | position of the first entry |
//! | 56 | u64 | everything before this position was released when the group was written; a hint that may lag |
//! | 64 | i64 | tag of the opening that wrote the group: upper half random and not 0, lower half 0; in version 1 all of it random |
//! | 72 | i64 | tag of the place before the first entry, see *Tags*; 0 at position 0 |
//! | 80 | | entries, one after the other |
//!
//! # Entry
//!
//! An entry is 24 bytes and its content: length of the content (u32), kind (u8: 1 frame, 2 undecodable, 3 message), the count
//! that acknowledges it (u8), zero (2), IMEI as a number (u64), receive time in µs since 1970-01-01 UTC (i64), content. The content
//! is the data field of the frame as it arrived, from codec id to second count.
//!
//! # Positions
//!
//! A position counts bytes of entries, entry headers included, over the journal's whole life, up to 2^63 − 1. The entry after
//! one at position p of stored length n begins at p + n, across groups and segments.
//!
//! # Tags
//!
//! The tag of a place tells what stands before it. Upper half: that of the opening that wrote the entry before it. Lower half: the
//! CRC of all entries before it, headers included, which goes on from the lower half of the tag before. An empty group changes no
//! tag. In groups of version 1, each place behind an entry has the tag of the opening, and no checksum. Groups of both versions may
//! follow each other, and the first of version 2 goes on from the tag that it found.
//!
//! # How to read
//!
//! Read the segments in the order of their numbers, each from byte 512. A group counts if magic, CRC, origin, segment number and
//! group number are right; the segment ends at the first place where none does. Each group begins at the position where the one
//! before it ended. If it does not, or if another group of this segment follows a place without a right group, that is
//! *damage*. Otherwise the journal ends there, and what follows is a group that was never promised.
