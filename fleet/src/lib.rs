//! A fleet of simulated trackers, and the audit of what the service acknowledged.
//!
//! A tracker logs in, sends its newest records first, waits for each answer, reconnects, and packs unacknowledged records into
//! new packets. Every record follows from its tracker and its number, so the audit can make it again.
//!
//! ```text
//! course ─► route ─sample─► packet ─bytes─► connection ─► service      backlog decides what goes into a packet,
//!             └─────────── record ────────► audit ◄─ database          tracker joins the two
//! ```
//!
//! This crate depends on the codecs and never on the service. So the compiler holds what makes the audit worth something: it
//! cannot use the code that builds the service's rows. It has its own list of columns and its own SQL, and the caller opens the
//! connections.

pub mod audit;
mod backlog;
mod clocks;
mod connection;
mod course;
mod database;
mod elements;
mod imei;
mod noise;
mod packet;
mod plan;
mod progress;
mod registered;
mod report;
mod route;
mod run;
mod tracker;

pub use clocks::Clocks;
pub use database::{Database, DatabaseError, OpenDatabase};
pub use imei::test_imei;
pub use plan::Plan;
pub use progress::Progress;
pub use registered::registered;
pub use report::TrackerReport;
pub use route::Route;
pub use run::run;
