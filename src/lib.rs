//! odograph: GPS telemetry ingest. Trackers in over TCP, exactly-once rows in TimescaleDB out.
//!
//! > A tracker is told "accepted" only for records that survive a power cut. Every such record reaches the database, and is
//! > there exactly once.
//!
//! ```text
//! tracker ─TCP─► gateway ─frame─► journal ──sync (group)──► receipt ─► ACK ─► tracker
//!                                    │
//!                                    └─► drain (lanes): decode → rows → batch ─► store: one transaction
//!                                          cursor on the journal      fence, COPY, quarantine, messages, flags, latest, checkpoint
//!                                                                     └─commit─► release journal
//! ```
//!
//! In the order of reading, from the socket to the operator:
//!
//! - [`cli`] parses the command, [`config`] the settings; [`app`] starts and stops the service. No other module refers to `app`.
//! - [`ingest::gateway`] serves the sockets, and [`ingest::admission`] decides which devices may log in.
//! - [`ingest::intake`] takes frames and gives receipts. [`odograph_journal`] makes frames survive a power cut before that.
//! - [`ingest::drain`] decodes frames into rows and commits them in batches, one lane for each share of the devices.
//! - [`store`] writes rows and never sees a frame: PostgreSQL with TimescaleDB by binary COPY, or embedded SQLite.
//! - [`flags`] takes the flags of marshals from a Redis stream to the ledger of the store.
//! - [`replay`] decodes the frames of the journal or the records of the quarantine again. [`retention`] deletes expired data.
//! - [`metrics`] and [`health`] hold what [`admin`] answers, even if the data path is stuck; [`admin_client`] asks it.
//! - [`check`] tells an operator whether an installation is sound.
//!
//! Without a durable disk, the commit replaces the journal: the intake hands frames to the drain directly, and a frame is
//! acknowledged after the commit of its batch.

pub mod admin;
pub mod admin_client;
pub mod app;
mod backoff;
pub mod check;
pub mod cli;
pub mod config;
pub mod flags;
pub mod health;
mod hex;
pub mod ingest;
pub mod lane;
mod log_limit;
mod log_output;
pub mod metrics;
pub mod replay;
pub mod retention;
pub mod store;
