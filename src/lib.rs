//! odograph: GPS telemetry ingest. Trackers in over TCP, exactly-once rows in TimescaleDB out.
//!
//! > A tracker is told "accepted" only for records that survive a power cut. Every such record reaches the database, and
//! > stands there exactly once.
//!
//! ```text
//! tracker ─TCP─► gateway ─frame─► journal ──sync (group)──► receipt ─► ACK ─► tracker
//!                                    │
//!                                    └─► drain (lanes): decode → rows → batch ─► store: one transaction
//!                                          cursor on the journal      fence, COPY, quarantine, messages, latest, checkpoint
//!                                                                     └─commit─► release journal
//! ```
//!
//! - [`gateway`] owns the sockets: login, frames, limits, acknowledgements. It never sees the store.
//! - [`admission`] knows which devices may log in: the gateway asks its list in memory, a thread keeps that up to date.
//! - [`receipt`] is between gateway and drain: only a sync or a commit makes a receipt, only writing the ACK consumes it.
//! - [`journal`] makes entries survive a power cut before anybody is told so. It knows only bytes.
//! - [`checkpoint`] is where a lane stands in its journal: the words that journal, drain and store share.
//! - [`drain`] reads entries, decodes them, builds rows and batches, and commits batch by batch, in lanes.
//! - [`store`] knows rows and nothing of frames: TimescaleDB by binary COPY, SQLite as the embedded default.
//! - [`flags`] takes what marshals declare faulty from a Redis stream to the store's ledger.
//! - [`admin`] answers `/metrics`, `/livez` and `/readyz` from [`metrics`] and [`health`], also when the data path is stuck.
//! - [`replay`] decodes what the journal has kept, or what is in quarantine, once more: for a mapping that was mended.
//! - [`config`] reads settings from file and environment, and reports all mistakes at once.
//! - [`app`] wires all of it: start order and stop order; nothing refers back to it.
//! - [`wall`] is the wall clock, handed to whoever needs it; with [`journal::FaultyDisk`] and [`store::FaultyDatabase`] a simulation
//!   drives all of this through faults, see `docs/simulation.md`.
//! - [`fleet`] is a fleet of simulated trackers, and the audit of what they were told.
//! - [`check`] tells an operator whether an installation is sound; [`retention`] drops what has grown too old.
//! - [`cli`] holds one file a command.
//!
//! Where there is no durable disk the commit takes the journal's place: frames go to the drain directly, and are acknowledged after
//! the commit of their batch.

pub mod admin;
pub mod admission;
pub mod app;
mod backoff;
pub mod check;
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
pub mod replay;
pub mod retention;
pub mod store;
pub mod wall;
