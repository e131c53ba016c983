//! odograph: GPS telemetry ingest. Trackers in over TCP, exactly-once rows in TimescaleDB out.
//!
//! > A tracker is told "accepted" only for records that survive a power cut. Every such record reaches the database, and
//! > stands there exactly once.
//!
//! ```text
//! tracker ─TCP─► gateway ──frame──► drain: decode → rows → batch ──► store: one transaction
//!                   ▲                                                    │
//!                   └──── ACK ◄──── receipt ◄──── commit gate ◄──commit──┘
//! ```
//!
//! - [`gateway`] owns the sockets: login, frames, limits, acknowledgements. It never sees the store.
//! - [`receipt`] is the type between them: only a commit makes one, only writing the ACK consumes it.
//! - [`journal`] makes entries survive a power cut before anybody is told so. It knows only bytes, and is not wired in yet.
//! - [`checkpoint`] is where a lane stands in its journal: the words that journal, drain and store share.
//! - [`drain`] takes frames, decodes them, builds rows and batches, and commits batch by batch.
//! - [`store`] knows rows and nothing of frames: TimescaleDB by binary COPY, SQLite as the embedded default.
//! - [`flags`] takes what marshals declare faulty from a Redis stream to the store's ledger.
//! - [`admin`] answers `/metrics`, `/livez` and `/readyz` from [`metrics`] and [`health`], also when the data path is stuck.
//! - [`config`] reads settings from file and environment, and reports all mistakes at once.
//! - [`app`] wires all of it: start order and stop order; nothing refers back to it.
//! - [`fleet`] is a fleet of simulated trackers, and the audit of what they were told.
//! - [`cli`] holds one file a command.
//!
//! Acknowledging after the commit is the only mode so far; the journal will take the frames between gateway and drain.

pub mod admin;
pub mod app;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod drain;
pub mod flags;
pub mod fleet;
pub mod gateway;
pub mod health;
pub mod journal;
pub mod metrics;
pub mod receipt;
pub mod retention;
pub mod store;
