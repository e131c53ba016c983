//! Faulty flags: what marshals declare in Directus, from the Redis stream into the ledger.
//!
//! ```text
//! Redis stream ──consumer──► parse ──► ledger: written down, then applied ──► XACK
//! position_flag_state ──reconciler──────►┘                 └─► corrections ──publisher──► corrected stream
//! ```
//!
//! - `event` reads an entry of the stream: pure.
//! - `consumer` takes entries in groups, has the ledger apply them, and acknowledges them after that.
//! - `publisher` tells timing services which windows changed.
//! - `reconciler` finds what the stream lost, also where there is no Redis at all.
//! - `watch` measures how far behind the group is, and clears away consumers that are gone.
//! - `survey` looks at all of it from outside, for `odograph check`.
//! - `link` is a connection to Redis, `reply` the shape of its answers.
//!
//! Nothing here decides what is faulty: that is [`crate::store::Ledger`]. Everything may happen twice.

mod consumer;
mod event;
mod link;
mod metrics;
mod publisher;
mod reconciler;
mod reply;
mod settings;
mod survey;
mod tasks;
mod watch;

pub use event::{Fault, parse};
pub use link::{InvalidRedisUrl, RedisUrl};
pub use metrics::{FlagMetrics, FlagResult};
pub use settings::{FlagSettings, Pace};
pub use survey::{Group, Names, Stream, Survey, survey};
pub use tasks::{FlagTasks, SpawnError, spawn, spawn_with};
