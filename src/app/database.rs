//! What the database is asked before anything is accepted.

use std::time::Duration;

use tokio::time::timeout;

use super::error::StartError;
use crate::health::{Health, Reason};
use crate::store::{DatabaseStore, DatabaseUrl, Lane, Schema, Store, features, migrates_on_open};
use odograph_journal::JournalId;

/// Inspects the schema. A database that lacks migrations would store nothing, so that ends the start. An absent database does
/// not: the journal holds what comes meanwhile.
///
/// # Errors
/// If migrations are missing, or the URL cannot be used.
pub(super) async fn inspect(url: &DatabaseUrl, health: &Health) -> Result<(), StartError> {
    // The embedded store is migrated when it is opened.
    if migrates_on_open(url) {
        return Ok(());
    }
    let lane = Lane::only(JournalId::random());
    let mut store = DatabaseStore::open(url, lane, None).await.map_err(StartError::Store)?;
    match store.schema().await {
        Ok(Schema::Outdated) => return Err(StartError::SchemaOutdated),
        Ok(Schema::Current | Schema::Newer) => warn_about_missing_features(url).await,
        Err(error) => {
            health.raise(Reason::of(error.class));
            tracing::warn!(cause = %error.source, "starting without the database: {error}");
        }
    }
    Ok(())
}

/// Logs one line about the features that this database lacks and what that costs.
async fn warn_about_missing_features(url: &DatabaseUrl) {
    match timeout(FEATURES_PATIENCE, features(url)).await {
        Err(_) => tracing::warn!("the database did not say in time which features it has"),
        Ok(Ok(features)) => {
            if let Some(lacks) = features.lacks() {
                tracing::warn!("{lacks}");
            }
        }
        Ok(Err(error)) => tracing::warn!(cause = %error.source, "{error}"),
    }
}

/// The answer is only one line in the log: no reason to keep trackers waiting.
const FEATURES_PATIENCE: Duration = Duration::from_secs(5);
