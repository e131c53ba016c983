//! PostgreSQL, with TimescaleDB or without. New rows go by binary COPY straight into `positions`, rows that may be stored
//! already through a temporary table under the key.
//!
//! This folder holds SQL and the driver. The order of the statements is in `commit/script.rs` and `flags/script.rs`.

mod batch_session;
mod connection;
mod copy;
pub(crate) mod devices;
mod faulty_session;
pub(crate) mod features;
mod flag_session;
mod flag_sql;
mod latest;
pub(crate) mod migrate;
pub(crate) mod operator_connection;
pub(crate) mod quarantine;
pub(crate) mod replay;
mod replay_sql;
pub(crate) mod retain;
mod session_settings;
mod sql;
mod store;
pub(crate) mod tls;
mod trusted_server;
pub(crate) mod url;
pub(crate) mod url_error;

pub use self::copy::{DoesNotFit, encode_copy};
pub use self::store::{PostgresConnect, PostgresLedger, PostgresStore};
