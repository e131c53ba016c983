//! PostgreSQL, with TimescaleDB or without: rows go by binary COPY straight into `positions`, those that may stand there
//! already through a temporary table under the key, all in one transaction behind the lane's fence.
//!
//! A connection that met an error, a timeout or a cancelled commit is closed and never used again: what state it was left
//! in is nobody's guess.

mod bisect;
mod connection;
mod copy;
pub(crate) mod devices;
pub(crate) mod features;
mod flag_batch;
mod flag_change;
mod flag_sql;
mod flag_update;
mod lanes;
mod latest;
mod ledger;
pub(crate) mod migrate;
pub(crate) mod quarantine;
mod replay;
mod replay_sql;
pub(crate) mod retain;
pub(crate) mod session;
mod sql;
pub(crate) mod tls;
mod transaction;
pub(crate) mod url;

use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::{Manager, Object, Pool, Runtime};
use tokio::time::timeout;

use self::connection::Connection;
pub use self::copy::{DoesNotFit, encode_copy};
pub use self::ledger::PostgresLedger;
pub(crate) use self::replay::PostgresRewriter;
use self::transaction::Transaction;
use super::migrate::{APPLIED, MIGRATIONS, MIGRATIONS_TABLE_EXISTS};
use super::{Batch, DatabaseUrl, ErrorClass, QuarantineCap, Schema, Store, StoreError};
use crate::store::commit::write_strategy::{WriteStrategy, next_strategy};
use crate::store::model::fence::{BatchSpan, Checkpoint, CommitInDoubt, CommitOutcome, Lane};

/// Writes one lane to PostgreSQL over one connection, which is made when it is needed: the database may be away at the
/// start.
pub struct PostgresStore {
    /// Makes connections within a time limit. It keeps none: one that is given back would be used again, whatever its state.
    pool: Pool,
    lane: Lane,
    /// Taken out for each operation and put back only when all went well.
    connection: Option<Connection>,
    /// For encoding; its memory serves the next batch.
    buffer: BytesMut,
    /// The commit that was sent and not answered.
    doubt: Option<CommitInDoubt>,
    /// How the next batch begins: the fast strategy, unless it lately met rows that it should not.
    strategy: WriteStrategy,
    cap: QuarantineCap,
}

impl PostgresStore {
    /// Prepares for a database, without connecting.
    ///
    /// # Errors
    /// When the URL is not one of PostgreSQL, or names certificates that cannot be read.
    pub fn new(url: &DatabaseUrl, lane: Lane) -> Result<Self, StoreError> {
        let pool = pool(url)?;
        Ok(Self {
            pool,
            lane,
            connection: None,
            buffer: BytesMut::new(),
            doubt: None,
            strategy: WriteStrategy::Copy,
            cap: None,
        })
    }

    /// The same, with a bound to what quarantine keeps of a device.
    #[must_use]
    pub fn keeping(self, cap: QuarantineCap) -> Self {
        Self { cap, ..self }
    }

    /// The connection that served last, if it still lives, or a new one. The caller owns it, and gives it back or not.
    async fn connection(&mut self) -> Result<Connection, StoreError> {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        connect(&self.pool).await
    }

    async fn attempt(
        &mut self,
        strategy: WriteStrategy,
        batch: &Batch,
        step: &BatchSpan,
    ) -> Result<CommitOutcome, StoreError> {
        let mut connection = self.connection().await?;
        let attempt = async {
            connection.claim(self.lane).await?;
            let (connection, buffer) = (&mut connection, &mut self.buffer);
            Transaction { connection, lane: self.lane, cap: self.cap, buffer }
                .run(strategy, batch, step, &mut self.doubt)
                .await
        };
        let outcome = timeout(strategy.patience(), attempt)
            .await
            .map_err(|_| StoreError::timed_out("committing a batch", strategy.patience()))??;
        self.connection = Some(connection);
        Ok(outcome)
    }
}

impl Store for PostgresStore {
    fn assign(&mut self, lane: Lane) {
        // The claim is the session's, so it ends with the connection.
        (self.lane, self.connection, self.doubt) = (lane, None, None);
    }

    async fn open_lane(&mut self) -> Result<Checkpoint, StoreError> {
        let mut connection = self.connection().await?;
        let opening = async {
            connection.claim(self.lane).await?;
            lanes::open(&mut connection, self.lane).await
        };
        let checkpoint = bounded("opening a lane", opening).await?;
        self.connection = Some(connection);
        Ok(checkpoint)
    }

    async fn commit(&mut self, batch: &mut Batch, step: &BatchSpan) -> Result<CommitOutcome, StoreError> {
        batch.sort();
        let mut strategy = self.strategy;
        loop {
            let error = match self.attempt(strategy, batch, step).await {
                Ok(CommitOutcome::Committed(committed)) => {
                    self.strategy = next_strategy(strategy, batch, committed.duplicates());
                    return Ok(CommitOutcome::Committed(committed));
                }
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            match strategy.after(error.kind()) {
                Some(next) if self.doubt.is_none() => strategy = next,
                _ => return Err(error.with_doubt(self.doubt.is_some())),
            }
        }
    }

    async fn retire(&mut self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let forgetting = async {
            connection.claim(self.lane).await?;
            lanes::forget(&mut connection, self.lane).await
        };
        bounded("forgetting a journal", forgetting).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn schema(&mut self) -> Result<Schema, StoreError> {
        const LOOKING: &str = "looking at the schema";
        let mut connection = self.connection().await?;
        let applied = bounded(LOOKING, applied_migrations(&mut connection)).await?;
        self.connection = Some(connection);
        Ok(MIGRATIONS.compare(&applied))
    }

    async fn close(&mut self) {
        // No transaction is open between two commits, so there is nothing to say to the server.
        self.connection = None;
    }
}

/// Makes connections within a time limit, and keeps none.
fn pool(url: &DatabaseUrl) -> Result<Pool, StoreError> {
    const PREPARING: &str = "preparing the database connection";
    let DatabaseUrl::Postgres(url) = url else {
        return Err(StoreError::new(ErrorClass::Refuses, PREPARING, "the URL is not one of PostgreSQL"));
    };
    // The client's own timeout ends at the TCP connection; this one bounds logging in as well.
    Pool::builder(Manager::new(url.config(), url.tls()?))
        .max_size(1)
        .create_timeout(Some(url.connect_timeout()))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::new(ErrorClass::Refuses, PREPARING, error))
}

async fn connect(pool: &Pool) -> Result<Connection, StoreError> {
    let object = pool.get().await.map_err(|error| StoreError::postgres_connect("connecting to the database", error))?;
    Ok(Connection::new(Object::take(object)))
}

async fn bounded<T>(doing: &'static str, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(SHORT_PATIENCE, work).await.map_err(|_| StoreError::timed_out(doing, SHORT_PATIENCE))?
}

async fn applied_migrations(connection: &mut Connection) -> Result<Vec<i64>, StoreError> {
    const LOOKING: &str = "looking at the schema";
    let failed = |error| StoreError::postgres(LOOKING, error);
    let begun = connection.query(LOOKING, MIGRATIONS_TABLE_EXISTS, &[]).await?;
    if !begun.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        return Ok(Vec::new());
    }
    connection.query(LOOKING, APPLIED, &[]).await?.iter().map(|row| row.try_get(0).map_err(failed)).collect()
}

/// Longer than the lock timeout: the server's error says more than ours.
const SHORT_PATIENCE: Duration = Duration::from_secs(15);
