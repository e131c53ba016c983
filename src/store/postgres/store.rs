//! PostgreSQL as a store and as a ledger of flags: the scripts over sessions of one server.

use deadpool_postgres::{Manager, Object, Pool, Runtime};

use super::connection::Connection;
use super::session_settings;
use super::url::PostgresUrl;
use crate::lane::Lane;
use crate::store::commit::lane_writer::LaneWriter;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::flags::flag_ledger::FlagLedger;
use crate::store::session_slot::bounded;
use crate::store::statements::Connect;

/// Writes one lane to PostgreSQL over one connection, which is made when it is needed.
pub type PostgresStore = LaneWriter<PostgresConnect>;

/// Writes the ledger of flags in PostgreSQL over one connection, and makes positions follow.
pub type PostgresLedger = FlagLedger<PostgresConnect>;

impl PostgresStore {
    /// Prepares for a database, without connecting.
    ///
    /// # Errors
    /// When the URL names certificates that cannot be read.
    pub fn new(url: &PostgresUrl, lane: Lane) -> Result<Self, StoreError> {
        Ok(Self::over(PostgresConnect::new(url)?, lane))
    }
}

impl PostgresLedger {
    /// Prepares for a database, without connecting.
    ///
    /// # Errors
    /// When the URL names certificates that cannot be read.
    pub fn new(url: &PostgresUrl) -> Result<Self, StoreError> {
        Ok(Self::over(PostgresConnect::new(url)?))
    }
}

/// Makes connections within a time limit, and keeps none: one that is given back would be used again, whatever its state.
pub struct PostgresConnect(Pool);

impl PostgresConnect {
    pub(super) fn new(url: &PostgresUrl) -> Result<Self, StoreError> {
        const PREPARING: &str = "preparing the database connection";
        // The client's own timeout ends at the TCP connection; this one bounds logging in as well.
        let pool = Pool::builder(Manager::new(url.config(), url.tls()?))
            .max_size(1)
            .create_timeout(Some(url.connect_timeout()))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::new(ErrorClass::Refuses, PREPARING, error))?;
        Ok(Self(pool))
    }
}

impl Connect for PostgresConnect {
    type Session = Connection;

    async fn connect(&mut self) -> Result<Connection, StoreError> {
        let object = self.0.get().await;
        let object = object.map_err(|error| StoreError::postgres_connect("connecting to the database", error))?;
        let client = Object::take(object);
        bounded("checking the settings of the session", session_settings::verify(&client)).await?;
        Ok(Connection::new(client))
    }
}
