//! The gateway owns the sockets of the trackers. It hands entries to the intake, and answers with the receipts that
//! come back. It never sees the store.
//!
//! ```text
//! tracker ─► listener ─► connection ─► handover ─► intake
//!                            │        session, room  │
//! tracker ◄── ACK ───────────┴──────── answers ◄─────┘
//! ```
//!
//! - `listener` accepts connections within the limits, and serves each one in a task of its own.
//! - `connection` is the socket: it reads, writes and keeps time. `state` is what it does next.
//! - `session` decides from bytes and time alone what an item means. `handover` carries the decision out.
//! - `room` waits until the intake has room. `answers` holds what the tracker is owed, in the order of the frames.
//! - `close` names every reason why a connection ends. `crc_dump` keeps frames with a wrong checksum for the operator.
//! - `sockets` knows the newest socket of each device. `context` is what all sessions share, `metrics` what they count.

mod answers;
mod close;
mod connection;
mod connection_slots;
mod context;
mod crc_dump;
mod handover;
mod listener;
mod metrics;
mod room;
mod session;
mod sockets;
mod state;
mod stranger;

pub use close::CloseReason;
pub use connection::serve;
pub use connection_slots::ConnectionSlots;
pub use context::Gateway;
pub use crc_dump::CrcDump;
pub use listener::{Limits, run};
pub use metrics::GatewayMetrics;
pub use session::Timeouts;
