//! Whether an installation is sound: everything that an operator would inspect, at once, with a finding for each.
//!
//! Reading and deciding are apart. A theme's `read` returns facts, or why there are none, within a bounded time. It changes
//! nothing, except for a small file in the data directory that is written for a moment to time the disk. Its `findings` is a
//! plain function from facts to [`Finding`]s, with a remedy for everything that is not as it should be.
//!
//! - `run`: all checks at once. `finding`: the status of a check, and the list of checks.
//! - `settings`, `host`, `data_dir`, `journal`: this machine.
//! - `service`: the running service, by its own account.
//! - `database_facts`: the database as a whole. `database`, `schema`, `hypertable`, `ingest`, `flags`, `devices`: its parts;
//!   `sqlite` if it is a file.
//! - `redis`: the stream of flags.

mod data_dir;
mod database;
mod database_facts;
mod devices;
mod finding;
mod flags;
mod host;
mod hypertable;
mod ingest;
mod journal;
mod redis;
mod run;
mod schema;
mod service;
mod settings;
mod sqlite;

pub use finding::{Check, CheckStatus, Finding};
pub use run::check;
pub use settings::of_mistakes;
