//! `odograph quarantine`: inspects records that could not become positions, retries them, or deletes them.
//!
//! `filter` says which records are meant, `output` prints one of them; the commands have a file each.

mod command;
mod filter;
mod list;
mod output;
mod purge;
mod retry;
mod show;

pub(super) use command::{Arguments, run};
