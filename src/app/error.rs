//! Why a service cannot start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::flags::SpawnError;
use crate::store::StoreError;
use odograph_journal::{OpenError, ReadError};

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is in use, or the address is not one of this machine.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The data directory cannot be created or written to.
    #[error("cannot use the directory {}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The journal cannot be opened or read.
    #[error("cannot open the journal")]
    Journal(#[source] JournalError),
    /// The embedded store cannot be opened, or a URL cannot be used.
    #[error("cannot open the database: {}", .0.source)]
    Store(#[source] StoreError),
    /// The database answers, but its schema is older than this program.
    #[error("the database lacks migrations: run `odograph migrate` with the same DATABASE_URL, then start again")]
    SchemaOutdated,
    /// The tasks for flags cannot be started.
    #[error(transparent)]
    Flags(#[from] SpawnError),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It opens but cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
