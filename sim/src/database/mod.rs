//! A database in memory that fails in every way in which a real one may fail. It is to transactions what `FaultyDisk`
//! is to files. Nothing is durable.
//!
//! It implements the port of statements, so the scripts that drive it are the ones that ship. A statement waits until
//! the world serves it, with a fate: done, never sent, done and not answered, or a victim of others. A backend whose
//! client is gone stays, with its locks and perhaps with a commit that had arrived, until the world has the server
//! notice. Transactions see what is committed and their own writes (READ COMMITTED). They wait for row locks and
//! advisory locks, and a circle of waiting has a victim. Outside of a transaction each statement commits by itself.

mod batch_session;
mod fate;
mod faulty_session;
mod flag_session;
mod flaw;
mod locks;
mod server;
mod session;
mod sim_database;
mod tables;

pub use fate::{AbandonedBackend, Fate, PendingStatement};
pub use flaw::Flaw;
pub use session::SimSession;
pub use sim_database::{SimDatabase, Snapshot};
pub use tables::{Flagged, StoredRow, Tables};
