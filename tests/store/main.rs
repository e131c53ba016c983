//! The stores: rows and schema in PostgreSQL and SQLite, the fence, refused rows, retention, TLS.

#![expect(clippy::unwrap_used, reason = "a step that fails here is a test that fails")]

mod named_values;
mod schema;
mod schema_elements;
mod store_fence;
mod store_refusals;
mod store_remedies;
mod store_retention;
mod store_sessions;
mod store_sqlite;
mod store_timescale;
mod store_tls;
mod stores;

use odograph_testkit::Odograph;

const ODOGRAPH: Odograph = Odograph::at(env!("CARGO_BIN_EXE_odograph"));
