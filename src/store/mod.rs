//! The stores: they know rows, not frames. A batch is committed whole, in one transaction, or not at all.
//!
//! `positions` holds each row exactly once under its key (imei, ts, fingerprint), however often it is committed. Each
//! transaction begins at the lane's checkpoint, which is a fence (see [`Lane`]): it finds a commit whose answer was lost,
//! and stops a second owner of the journal.
//!
//! - `port` and `statements` are the traits: what the service calls, and what a transaction is made of.
//! - `model` holds the types, `error` what goes wrong.
//! - `commit` and `flags` tell the order of a transaction, once, over `statements`; `session_slot` keeps a connection for them.
//! - `postgres` and `sqlite` hold SQL and drivers; `url` reads where the database is.
//! - `database` is the only file that decides between the two.
//!
//! This file maps and re-exports. Inside the store, modules import from the file that defines a name.

mod commit;
mod database;
mod error;
mod flags;
mod model;
mod port;
mod postgres;
mod session_slot;
mod sqlite;
mod statements;
mod url;

pub use crate::lane::Lane;
pub use commit::lane_writer::LaneWriter;
pub use commit::quarantine_input::{QuarantineCap, QuarantineInput};
pub use commit::script::{COMMIT_ORDER, CommitStep};
pub use database::{
    DatabaseLedger, DatabaseStore, DeviceTable, Quarantine, Rewriter, features, file_of, inspect, lanes_max, migrate,
    migrates_on_open, retain, schema, server_of,
};
pub use error::class::ErrorClass;
pub use error::remedy::remedy;
pub use error::store_error::{CLAIMING_LANE, StoreError};
pub use flags::cache::LedgerEntry;
pub use flags::flag_ledger::FlagLedger;
pub use flags::intervals::FlagInterval;
pub use flags::script::{APPLY_ORDER, FLAG_ORDER, FlagOrder, FlagStep, RECORD_ORDER};
pub use model::batch::{Batch, Message, QuarantineReason, Quarantined};
pub use model::columns::{ColumnType, ELEMENT_COLUMNS, ELEMENTS, ElementColumn, column_of};
pub use model::committed::{Committed, Reduced, WritePath};
pub use model::devices::Devices;
pub use model::features::{Columnstore, Features, PositionsTable};
pub use model::fence::{BatchSpan, Checkpoint, CommitOutcome, StoredCheckpoint};
pub use model::flag::{Applied, Correction, FlagChange, FlagState, InvalidWindow, Window};
pub use model::migration::{MigrateOptions, MigrateReport, Schema};
pub use model::quarantine::{QuarantineCursor, QuarantineEntry, QuarantineFilter, QuarantineTotal};
pub use model::retention::{DroppedChunk, Retention, RetentionReport};
pub use model::retention_clock::{RetentionClock, RetentionRefusal};
pub use model::rewrite::{Differences, LanePosition, ReplayBatch, RewriteReport, RowDifference};
pub use model::row::{Key, MAX_TS_MS, MIN_TS_MS, Row, Spans, TypedElements};
pub use model::rows::{RowSlice, Rows};
pub use model::unapplied::{FlagWindow, UnappliedFlags};
pub use port::{Ledger, OUTBOX_MAX, Store};
pub use postgres::operator_connection::connect;
pub use postgres::tls::{HandshakeError, MakeTls};
pub use postgres::url::PostgresUrl;
pub use postgres::url_error::InvalidPostgresUrl;
pub use postgres::{DoesNotFit, PostgresConnect, PostgresLedger, PostgresStore, encode_copy};
pub use sqlite::{SqliteLedger, SqliteStore};
pub use statements::{BatchSession, Connect, FaultySession, FlagSession, PartTable, Session};
pub use url::{DatabaseUrl, InvalidDatabaseUrl};
