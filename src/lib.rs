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
//! - [`ingest`] takes the way of a frame: [`ingest::gateway`] (sockets, login, acknowledgements), [`ingest::admission`] (which
//!   devices may log in), [`ingest::intake`] (entries in, receipts out), [`ingest::drain`] (rows, batches, lanes).
//! - [`odograph_journal`] makes entries survive a power cut before a tracker is told "accepted".
//! - [`store`] knows rows and never frames: TimescaleDB by binary COPY, SQLite as the embedded default.
//! - [`flags`] takes what marshals declare faulty from a Redis stream to the store's ledger.
//! - [`replay`] decodes what the journal has kept, or what is in quarantine, again.
//! - [`retention`] drops what has grown too old; [`check`] tells an operator whether an installation is sound.
//! - [`admin`] answers `/metrics`, `/livez` and `/readyz` from [`metrics`] and [`health`], also when the data path is stuck;
//!   [`admin_client`] asks it.
//! - [`config`] reads settings from file and environment, and reports all mistakes at once.
//! - [`app`] wires all of it: start order and stop order; nothing refers back to it.
//! - [`cli`] holds one file a command.
//!
//! Where there is no durable disk the commit takes the journal's place: frames go to the drain directly, and are acknowledged after
//! the commit of their batch.

pub mod admin;
pub mod admin_client;
pub mod app;
mod backoff;
pub mod check;
pub mod cli;
pub mod config;
pub mod flags;
pub mod health;
pub mod ingest;
pub mod metrics;
pub mod replay;
pub mod retention;
pub mod store;
