//! Ingest: from the socket of a tracker to a batch that a store commits. It knows the ports of the store, never a
//! database.
//!
//! The way of a frame:
//!
//! 1. `gateway/listener.rs` accepts the connection within the limits, and starts its session.
//! 2. `gateway/connection.rs` reads bytes. `gateway/state.rs` says when it may, and when the connection ends.
//! 3. `gateway/session.rs` decides what the bytes are: login, frame, message, ping, or a reason to close.
//! 4. `admission/` says at the login whether the device may send, from a list in memory.
//! 5. `gateway/handover.rs` makes an entry of IMEI, receive time and raw bytes. If there is no room for it,
//!    `gateway/room.rs` waits.
//! 6. `intake.rs` takes the entry into the journal, or into the queue of its lane if there is no journal. The session
//!    gets a pending receipt.
//! 7. The sync of the journal makes the receipt; without a journal, the commit of the batch makes it.
//! 8. `gateway/answers.rs` turns the receipt into the ACK, and the connection writes it.
//! 9. `drain/` reads the entry, with a lane per share of the devices. It decodes the records into rows, leaves out
//!    resends, and commits a batch with the store. Then the journal may delete the entry.
//!
//! Sessions share their threads, and none of them uses a database. Each lane has a thread of its own. At every bound,
//! sockets are not read, and TCP holds the trackers.

pub mod admission;
pub mod drain;
pub mod gateway;
pub mod intake;
