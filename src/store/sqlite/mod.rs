//! SQLite in a file: the embedded default, which needs no set-up. One immediate transaction writes at a time.
//!
//! - `store` writes the batches of a lane: `transaction` is the order, `insert` the rows, `flag_batch` their flags.
//! - `ledger` writes the ledger of flags; `flags` is what it shares with the store.
//! - `migrate`, `quarantine`, `devices`, `retain` and `replay` serve the operator's tools.
//! - `connection` opens the file for writers, `session` for the operator's tools.

mod connection;
pub(crate) mod devices;
mod flag_batch;
mod flags;
mod insert;
mod ledger;
pub(crate) mod migrate;
mod operator_connection;
pub(crate) mod quarantine;
pub(crate) mod replay;
pub(crate) mod retain;
mod store;
mod transaction;

pub use self::ledger::SqliteLedger;
pub use self::store::SqliteStore;
