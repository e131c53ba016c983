//! The ledger in PostgreSQL, over a connection of its own, which is made when it is needed.
//!
//! A change takes two transactions, see [`crate::store::postgres::flag_change`]. A connection that met an error or was left in mid-operation is
//! closed and never used again.

use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::time::timeout;

use super::connection::Connection;
use super::flag_sql::{
    BEHIND, CORRECTIONS, FORGET_CORRECTIONS, PUBLISHER_LOCK, STATE_EXISTS, TRIM_CORRECTIONS, TRY_PUBLISHER,
    UNAPPLIED_FLAGS,
};
use super::{bounded, connect, pool};
use crate::store::flags::ledger::{Ledger, OUTBOX_MAX, newest_of_each, outcomes};
use crate::store::model::flag::{Applied, Correction, FlagChange, FlagState};
use crate::store::postgres::flag_batch::window;
use crate::store::postgres::flag_change;
use crate::store::{DatabaseUrl, ErrorClass, StoreError};

/// Writes the ledger of flags in PostgreSQL, and makes positions follow.
pub struct PostgresLedger {
    pool: Pool,
    /// Taken out for each operation and put back only when all went well.
    connection: Option<Connection>,
    /// Whether this session publishes corrections.
    publishes: bool,
}

impl PostgresLedger {
    /// Prepares for a database, without connecting.
    ///
    /// # Errors
    /// When the URL is not one of PostgreSQL, or names certificates that cannot be read.
    pub fn new(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Ok(Self { pool: pool(url)?, connection: None, publishes: false })
    }

    async fn connection(&mut self) -> Result<Connection, StoreError> {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        // The lock went with the session that had it.
        self.publishes = false;
        connect(&self.pool).await
    }
}

impl Ledger for PostgresLedger {
    async fn apply(&mut self, changes: &[FlagChange]) -> Result<Vec<Applied>, StoreError> {
        let newest = newest_of_each(changes);
        if newest.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection().await?;
        let applying = async {
            flag_change::record(&mut connection, &newest).await?;
            let flags: Vec<_> = newest.iter().map(|change| change.flag).collect();
            flag_change::apply(&mut connection, &flags).await
        };
        let applied =
            timeout(PATIENCE, applying).await.map_err(|_| StoreError::timed_out("applying flags", PATIENCE))??;
        self.connection = Some(connection);
        Ok(outcomes(changes, &applied))
    }

    async fn finish(&mut self, most: usize) -> Result<usize, StoreError> {
        const FINISHING: &str = "finishing flags";
        let mut connection = self.connection().await?;
        let finishing = async {
            let rows = connection.query(FINISHING, UNAPPLIED_FLAGS, &[&limit(most)]).await?;
            let failed = |error| StoreError::postgres(FINISHING, error);
            let flags: Vec<_> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)?;
            Ok(if flags.is_empty() { 0 } else { flag_change::apply(&mut connection, &flags).await?.len() })
        };
        let finished = timeout(PATIENCE, finishing).await.map_err(|_| StoreError::timed_out(FINISHING, PATIENCE))??;
        self.connection = Some(connection);
        Ok(finished)
    }

    async fn behind(&mut self, most: usize) -> Result<Vec<FlagChange>, StoreError> {
        const RECONCILING: &str = "comparing the ledger with Directus' side";
        let mut connection = self.connection().await?;
        let comparing = async {
            let there = connection.query(RECONCILING, STATE_EXISTS, &[]).await?;
            if there.first().and_then(|row| row.try_get(0).ok()) != Some(true) {
                return Ok(Vec::new());
            }
            connection.query(RECONCILING, BEHIND, &[&limit(most)]).await?.iter().map(change).collect()
        };
        let changes = bounded(RECONCILING, comparing).await?;
        self.connection = Some(connection);
        Ok(changes)
    }

    async fn corrections(&mut self, most: usize) -> Result<Option<Vec<Correction>>, StoreError> {
        const READING: &str = "reading corrections";
        let mut connection = self.connection().await?;
        let publishes = self.publishes;
        let reading = async {
            if !publishes {
                let taken = connection.query(READING, TRY_PUBLISHER, &[&PUBLISHER_LOCK]).await?;
                if taken.first().and_then(|row| row.try_get(0).ok()) != Some(true) {
                    return Ok(None);
                }
            }
            let rows = connection.query(READING, CORRECTIONS, &[&limit(most)]).await?;
            rows.iter().map(correction).collect::<Result<_, _>>().map(Some)
        };
        let corrections = bounded(READING, reading).await?;
        (self.connection, self.publishes) = (Some(connection), corrections.is_some());
        Ok(corrections)
    }

    async fn told(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        const REMOVING: &str = "removing corrections that were told";
        let mut connection = self.connection().await?;
        bounded(REMOVING, connection.execute(REMOVING, FORGET_CORRECTIONS, &[&ids])).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn trim_corrections(&mut self) -> Result<u64, StoreError> {
        const TRIMMING: &str = "trimming corrections";
        let mut connection = self.connection().await?;
        let gone = bounded(TRIMMING, connection.execute(TRIMMING, TRIM_CORRECTIONS, &[&OUTBOX_MAX])).await?;
        self.connection = Some(connection);
        Ok(gone)
    }

    async fn close(&mut self) {
        self.connection = None;
    }
}

/// A row of Directus' side: flag, seq, window, faulty, deleted, reason.
fn change(row: &tokio_postgres::Row) -> Result<FlagChange, StoreError> {
    let failed = |error| StoreError::postgres(READING, error);
    let deleted: bool = row.try_get(6).map_err(failed)?;
    let window = window(row, 2)?;
    let state = match window {
        Some(window) if !deleted => {
            FlagState::Set { window, faulty: row.try_get(5).map_err(failed)?, reason: row.try_get(7).map_err(failed)? }
        }
        None if !deleted => return Err(StoreError::new(ErrorClass::Refuses, READING, "a live flag without a window")),
        _ => FlagState::Deleted,
    };
    // A deleted one says what it covered last.
    let old = if deleted { window } else { None };
    Ok(FlagChange { flag: row.try_get(0).map_err(failed)?, seq: row.try_get(1).map_err(failed)?, old, state })
}

fn correction(row: &tokio_postgres::Row) -> Result<Correction, StoreError> {
    let failed = |error| StoreError::postgres(READING, error);
    let window = window(row, 1)?;
    let window =
        window.ok_or_else(|| StoreError::new(ErrorClass::Refuses, READING, "a correction without a window"))?;
    Ok(Correction {
        id: row.try_get(0).map_err(failed)?,
        window,
        positions: row.try_get(4).map_err(failed)?,
        flag: row.try_get(5).map_err(failed)?,
        seq: row.try_get(6).map_err(failed)?,
    })
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

const READING: &str = "reading what concerns flags";
/// A group takes milliseconds, a flag over a season of one device some seconds.
const PATIENCE: Duration = Duration::from_mins(10);
