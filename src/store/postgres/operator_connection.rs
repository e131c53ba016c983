//! Connections of the operator's tools and audits: a statement may take as long as it needs.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::session_settings;
use super::url::PostgresUrl;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;

/// Connects to the first host of the URL that answers, within its time limit.
///
/// # Errors
/// It names the remedy if there is one.
pub async fn connect(url: &PostgresUrl, doing: &'static str) -> Result<Client, StoreError> {
    let (config, tls) = (url.maintenance_config(), url.tls()?);
    let (client, connection) = tokio::time::timeout(url.connect_timeout(), config.connect(tls))
        .await
        .map_err(|_| StoreError::timed_out(doing, url.connect_timeout()))?
        .map_err(failed(doing))?;
    // Ends with the client, which also returns its errors.
    tokio::spawn(connection);
    tokio::time::timeout(url.connect_timeout(), session_settings::verify(&client))
        .await
        .map_err(|_| StoreError::timed_out(doing, url.connect_timeout()))??;
    Ok(client)
}

/// Connects, and refuses a server that accepts no writes.
pub(crate) async fn connect_to_primary(url: &PostgresUrl, doing: &'static str) -> Result<Client, StoreError> {
    let client = connect(url, doing).await?;
    let standby: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(failed(doing))?.get(0);
    if standby {
        let refused = "the server is a standby and accepts no writes: name the primary in DATABASE_URL, or every \
                       server, as in postgres://user@one,two/database?target_session_attrs=read-write";
        return Err(StoreError::new(ErrorClass::Refuses, doing, refused));
    }
    Ok(client)
}

/// Turns a client's error into ours, with its remedy.
pub(crate) fn failed(doing: &'static str) -> impl FnOnce(Error) -> StoreError {
    move |error| StoreError::postgres_client(doing, None, error)
}

/// The same for a statement of a migration, which the error names. A failed assertion in it asks the operator to act.
pub(crate) fn failed_in(doing: &'static str, migration: &'static str) -> impl FnOnce(Error) -> StoreError {
    move |error| {
        let asserted = error.code() == Some(&SqlState::RAISE_EXCEPTION);
        let mut failed = StoreError::postgres_client(doing, Some(migration), error);
        if asserted {
            failed.class = ErrorClass::Refuses;
        }
        failed
    }
}
