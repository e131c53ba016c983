//! Connections for migrations, retention and audits: a statement may take as long as it needs.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use crate::store::error::remedy;
use crate::store::{ErrorClass, PostgresUrl, StoreError};

/// Connects to the first host of the URL that answers, within its time limit.
///
/// # Errors
/// They name the remedy where there is one.
pub async fn connect(url: &PostgresUrl, doing: &'static str) -> Result<Client, StoreError> {
    let (config, tls) = (url.maintenance_config(), url.tls()?);
    let (client, connection) = tokio::time::timeout(url.connect_timeout(), config.connect(tls))
        .await
        .map_err(|_| StoreError::timed_out(doing, url.connect_timeout()))?
        .map_err(|error| remedy::explain(doing, None, error))?;
    // Ends with the client, which also gets its errors.
    tokio::spawn(connection);
    Ok(client)
}

/// The same, and refuses a server that takes no writes.
pub(crate) async fn connect_to_primary(url: &PostgresUrl, doing: &'static str) -> Result<Client, StoreError> {
    let client = connect(url, doing).await?;
    let standby: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(failed(doing))?.get(0);
    if standby {
        let refused = "the server is a standby and takes no writes: name the primary in DATABASE_URL, or every server, as \
                       in postgres://user@one,two/database?target_session_attrs=read-write";
        return Err(StoreError::new(ErrorClass::Refuses, doing, refused));
    }
    Ok(client)
}

/// What makes a client's error one of ours, with its remedy.
pub(crate) fn failed(doing: &'static str) -> impl FnOnce(Error) -> StoreError {
    move |error| remedy::explain(doing, None, error)
}

/// The same for a statement of a migration, which is named. What an assertion in it says is for the operator.
pub(crate) fn failed_in(doing: &'static str, migration: &'static str) -> impl FnOnce(Error) -> StoreError {
    move |error| {
        let asserted = error.code() == Some(&SqlState::RAISE_EXCEPTION);
        let mut failed = remedy::explain(doing, Some(migration), error);
        if asserted {
            failed.class = ErrorClass::Refuses;
        }
        failed
    }
}
