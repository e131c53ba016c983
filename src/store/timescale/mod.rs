//! PostgreSQL, with TimescaleDB or without: a batch goes by binary COPY into a temporary table, and from there under the
//! keys into `positions`, in one transaction.
//!
//! A connection that met an error, a timeout or a cancelled commit is closed and never used again: what state it was left
//! in is nobody's guess.

mod copy;
mod sql;

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use deadpool_postgres::{ClientWrapper, Manager, Object, Pool, Runtime};
use futures_util::SinkExt;
use tokio_postgres::NoTls;

use self::sql::{CREATE_INCOMING, Statements};
use super::migrate::{APPLIED, MIGRATIONS, MIGRATIONS_TABLE_EXISTS};
use super::sql::ColumnSet;
use super::{Batch, Committed, DatabaseUrl, ErrorClass, Schema, Store, StoreError};

/// Writes to PostgreSQL over one connection, which is made when it is needed: the database may be away at the start.
pub struct TimescaleStore {
    /// Makes connections within a time limit. It keeps none: one that is given back would be used again, whatever its state.
    pool: Pool,
    /// Taken out for each operation and put back only when all went well.
    connection: Option<Connection>,
    /// The encoded batch; its memory serves the next one.
    buffer: BytesMut,
}

impl TimescaleStore {
    /// Prepares for a database, without connecting.
    ///
    /// # Errors
    /// When the URL is not one of PostgreSQL.
    pub fn new(url: &DatabaseUrl) -> Result<Self, StoreError> {
        const PREPARING: &str = "preparing the database connection";
        let DatabaseUrl::Postgres(url) = url else {
            return Err(StoreError::new(ErrorClass::Refuses, PREPARING, "the URL is not one of PostgreSQL"));
        };
        // The client's own timeout ends at the TCP connection; this one bounds logging in as well.
        let pool = Pool::builder(Manager::new(url.config(), NoTls))
            .max_size(1)
            .create_timeout(Some(url.connect_timeout()))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::new(ErrorClass::Refuses, PREPARING, error))?;
        Ok(Self { pool, connection: None, buffer: BytesMut::new() })
    }

    /// The connection that served last, if it still lives, or a new one. The caller owns it, and gives it back or not.
    async fn connection(&mut self) -> Result<Connection, StoreError> {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.client.is_closed()) {
            return Ok(connection);
        }
        let object =
            self.pool.get().await.map_err(|error| StoreError::postgres_connect("connecting to the database", error))?;
        Ok(Connection { client: Object::take(object), statements: None })
    }
}

impl Store for TimescaleStore {
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        const COMMITTING: &str = "committing a batch";
        if batch.is_empty() {
            return Ok(Committed::new(0, 0));
        }
        let columns = ColumnSet::of(batch);
        copy::encode(batch, columns, &mut self.buffer)
            .map_err(|error| StoreError::new(ErrorClass::Refuses, "encoding a batch", error))?;
        let encoded = self.buffer.split().freeze();
        let mut connection = self.connection().await?;
        let committed = tokio::time::timeout(COMMIT_TIMEOUT, connection.commit(encoded, columns, batch.rows().len()))
            .await
            .map_err(|_| StoreError::timed_out(COMMITTING, COMMIT_TIMEOUT))??;
        self.connection = Some(connection);
        Ok(committed)
    }

    async fn schema(&mut self) -> Result<Schema, StoreError> {
        const LOOKING: &str = "looking at the schema";
        let connection = self.connection().await?;
        let applied = tokio::time::timeout(SCHEMA_TIMEOUT, connection.applied_migrations())
            .await
            .map_err(|_| StoreError::timed_out(LOOKING, SCHEMA_TIMEOUT))?
            .map_err(|error| StoreError::postgres(LOOKING, error))?;
        self.connection = Some(connection);
        Ok(MIGRATIONS.compare(&applied))
    }

    async fn close(&mut self) {
        // No transaction is open between two commits, so there is nothing to say to the server.
        self.connection = None;
    }
}

/// A connection that we own: dropping it closes the socket, and the server rolls back what was open.
struct Connection {
    client: ClientWrapper,
    /// `None` until the table `incoming` is made.
    statements: Option<HashMap<ColumnSet, Statements>>,
}

impl Connection {
    async fn commit(&mut self, encoded: Bytes, columns: ColumnSet, rows: usize) -> Result<Committed, StoreError> {
        let Self { client, statements } = self;
        if statements.is_none() {
            client.batch_execute(CREATE_INCOMING).await.map_err(failed("making the table incoming"))?;
        }
        let prepared = statements.get_or_insert_default();
        if !prepared.contains_key(&columns) {
            if prepared.len() >= STATEMENTS_MAX {
                prepared.clear();
            }
            let made = Statements::prepare(client, columns).await.map_err(failed("preparing statements"))?;
            prepared.insert(columns, made);
        }
        let statements = prepared.get(&columns).expect("inserted above where it was missing");

        let transaction = client.transaction().await.map_err(failed("beginning a transaction"))?;
        let mut sink = pin!(transaction.copy_in::<_, Bytes>(&statements.copy).await.map_err(failed("beginning COPY"))?);
        let mut rest = encoded;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(COPY_PART));
            sink.send(part).await.map_err(failed("copying rows"))?;
        }
        let copied = sink.finish().await.map_err(failed("copying rows"))?;
        let inserted = transaction.execute(&statements.insert, &[]).await.map_err(failed("inserting rows"))?;
        transaction.execute(&statements.newest, &[]).await.map_err(failed("writing the newest positions"))?;
        let duplicates =
            u64::try_from(rows).ok().filter(|rows| *rows == copied).and_then(|rows| rows.checked_sub(inserted));
        // Triggers or rules on the table could make it so; then a commit would mean something else than it says.
        let duplicates = duplicates.ok_or_else(|| {
            StoreError::new(
                ErrorClass::Refuses,
                "counting rows",
                format!("{copied} copied, {inserted} inserted of {rows}"),
            )
        })?;
        transaction.commit().await.map_err(failed("committing"))?;
        Ok(Committed::new(inserted, duplicates))
    }

    async fn applied_migrations(&self) -> Result<Vec<i64>, tokio_postgres::Error> {
        if !self.client.query_one(MIGRATIONS_TABLE_EXISTS, &[]).await?.try_get::<_, bool>(0)? {
            return Ok(Vec::new());
        }
        self.client.query(APPLIED, &[]).await?.iter().map(|row| row.try_get(0)).collect()
    }
}

fn failed(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> StoreError {
    move |error| StoreError::postgres(doing, error)
}

/// A batch takes a second at most; the server gives up on a statement after 45. Longer means that nobody is there.
const COMMIT_TIMEOUT: Duration = Duration::from_mins(1);
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes handed to the connection at a time: it keeps a buffer of that size for good.
const COPY_PART: usize = 256 * 1024;
/// Column sets whose statements are kept. A fleet has a handful, as each is the union over a batch.
const STATEMENTS_MAX: usize = 32;
