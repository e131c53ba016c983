//! Faulty flags: what marshals declare in Directus, from the Redis stream to the ledger.
//!
//! ```text
//! Redis stream ──consumer──► parse ──► ledger: recorded, then applied ──► XACK
//! position_flag_state ──reconciler──────►┘                 └─► corrections ──publisher──► corrected stream
//! ```
//!
//! - `event` parses an entry of the stream. It is a pure function.
//! - `consumer` reads entries in batches, applies them through the ledger, then acknowledges them.
//! - `applier` divides a group that the database refuses; `stuck` sets the refused change aside.
//! - `publisher` tells timing services which windows changed.
//! - `reconciler` finds what the stream lost. It also runs without Redis.
//! - `lag` measures how far behind the group is, and removes consumers that are gone.
//! - `inspection` reads the state of Redis from outside, for `odograph check`.
//! - `tasks` starts and stops them; `context` is what they share, `config` what they are told.
//! - `link` is a connection to Redis, `reply` parses its answers.
//!
//! Nothing here decides what is faulty: [`crate::store::Ledger`] does. Every step may happen twice.

mod applier;
mod config;
mod consumer;
mod context;
mod event;
mod inspection;
mod lag;
mod link;
mod metrics;
mod publisher;
mod reconciler;
mod reply;
mod stuck;
mod tasks;

pub use config::{FlagConfig, Pace, consumer_name};
pub use event::{Fault, parse};
pub use inspection::{GroupState, RedisState, StreamNames, StreamState, inspect};
pub use link::{InvalidRedisUrl, RedisAuthority, RedisUrl};
pub use metrics::{FlagMetrics, FlagResult};
pub use tasks::{FlagTasks, SpawnError, spawn, spawn_with};
