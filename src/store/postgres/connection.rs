//! One connection to the server: what was prepared and locked on it, and the single statements of a transaction.

use std::collections::HashMap;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use deadpool_postgres::ClientWrapper;
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row as Answer, Statement};

use super::copy::{COPY_PART, Encoder};
use super::sql::{CREATE_INCOMING, StatementKind};
use crate::lane::Lane;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::model::column_set::ColumnSet;
use crate::store::model::rows::RowSlice;

/// A connection that we own: dropping it closes the socket, and the server rolls back an open transaction.
pub struct Connection {
    client: ClientWrapper,
    prepared: HashMap<(StatementKind, ColumnSet), Statement>,
    texts: HashMap<&'static str, Statement>,
    has_incoming: bool,
    /// For encoding; its memory serves the next batch.
    buffer: BytesMut,
}

impl Connection {
    pub(crate) fn new(client: ClientWrapper) -> Self {
        Self { client, prepared: HashMap::new(), texts: HashMap::new(), has_incoming: false, buffer: BytesMut::new() }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.client.is_closed()
    }

    /// Sends statements without parameters.
    pub(crate) async fn batch(&self, doing: &'static str, text: &str) -> Result<(), StoreError> {
        self.client.batch_execute(text).await.map_err(|error| StoreError::postgres(doing, error))
    }

    /// Runs a statement. Returns the number of rows it touched.
    pub(crate) async fn execute(
        &mut self,
        doing: &'static str,
        text: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StoreError> {
        let statement = self.statement(doing, text).await?;
        self.client.execute(&statement, parameters).await.map_err(|error| StoreError::postgres(doing, error))
    }

    /// Runs a query.
    pub(crate) async fn query(
        &mut self,
        doing: &'static str,
        text: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Answer>, StoreError> {
        let statement = self.statement(doing, text).await?;
        self.client.query(&statement, parameters).await.map_err(|error| StoreError::postgres(doing, error))
    }

    /// Runs a query that may return many rows, and passes them on one by one.
    pub(crate) async fn each(
        &mut self,
        doing: &'static str,
        text: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
        mut take: impl FnMut(&Answer) -> Result<(), tokio_postgres::Error>,
    ) -> Result<(), StoreError> {
        let failed = |error| StoreError::postgres(doing, error);
        let statement = self.statement(doing, text).await?;
        let parameters = parameters.iter().map(|parameter| *parameter as &(dyn ToSql + Sync));
        let mut rows = pin!(self.client.query_raw(&statement, parameters).await.map_err(failed)?);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            take(&row).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the tables in which rows land before the keys decide, unless this connection has them.
    pub(crate) async fn need_incoming(&mut self) -> Result<(), StoreError> {
        if !self.has_incoming {
            self.batch("making the tables incoming", CREATE_INCOMING).await?;
            self.has_incoming = true;
        }
        Ok(())
    }

    /// Runs a statement over a set of columns. Returns the number of rows it wrote.
    pub(crate) async fn insert(
        &mut self,
        doing: &'static str,
        kind: StatementKind,
        columns: ColumnSet,
    ) -> Result<u64, StoreError> {
        let statement = self.prepared(doing, kind, columns).await?;
        self.client.execute(&statement, &[]).await.map_err(|error| StoreError::postgres(doing, error))
    }

    /// Copies rows in their order, and encodes one part while the server works on the previous one. Returns what the
    /// server counted, which is the number of the rows.
    pub(crate) async fn copy(
        &mut self,
        doing: &'static str,
        kind: StatementKind,
        columns: ColumnSet,
        parts: &[RowSlice<'_>],
    ) -> Result<u64, StoreError> {
        let statement = self.prepared(doing, kind, columns).await?;
        let failed = |error| StoreError::postgres(doing, error);
        let mut sink = pin!(self.client.copy_in::<_, Bytes>(&statement).await.map_err(failed)?);
        let buffer = &mut self.buffer;
        buffer.clear();
        let encoder = Encoder::begin(columns, buffer);
        let mut sent = 0;
        for part in parts {
            let mut next = 0;
            while next < part.len() {
                // Awaits only between full buffers.
                let filled = encoder.fill(*part, &mut next, COPY_PART, buffer);
                filled.map_err(|error| StoreError::new(ErrorClass::Refuses, doing, error))?;
                if buffer.len() >= COPY_PART {
                    sink.send(buffer.split().freeze()).await.map_err(failed)?;
                    buffer.reserve(COPY_PART + USUAL_ROW_LEN);
                }
            }
            sent += u64::try_from(part.len()).unwrap_or(u64::MAX);
        }
        Encoder::end(buffer);
        sink.send(buffer.split().freeze()).await.map_err(failed)?;
        let copied = sink.finish().await.map_err(failed)?;
        // Triggers or rules on the table could make the counts differ. Then a commit would not mean what it reports.
        if copied == sent { Ok(copied) } else { Err(StoreError::miscounted(copied, sent)) }
    }

    async fn statement(&mut self, doing: &'static str, text: &'static str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.texts.get(text) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(text).await.map_err(|error| StoreError::postgres(doing, error))?;
        self.texts.insert(text, statement.clone());
        Ok(statement)
    }

    async fn prepared(
        &mut self,
        doing: &'static str,
        kind: StatementKind,
        columns: ColumnSet,
    ) -> Result<Statement, StoreError> {
        if let Some(statement) = self.prepared.get(&(kind, columns)) {
            return Ok(statement.clone());
        }
        if self.prepared.len() >= STATEMENTS_MAX {
            self.prepared.clear();
        }
        let text = kind.text(columns);
        let statement = self.client.prepare(&text).await.map_err(|error| StoreError::postgres(doing, error))?;
        self.prepared.insert((kind, columns), statement.clone());
        Ok(statement)
    }
}

/// The number under which a lane is locked: 64 bits of the journal's id, plus the lane.
pub(crate) fn key_of(lane: Lane) -> i64 {
    let (high, _) = lane.journal.uuid().as_u64_pair();
    high.wrapping_add(u64::from(lane.number)).cast_signed()
}

/// Bytes of a row without a large `io`.
const USUAL_ROW_LEN: usize = 512;
/// Statements that are kept. A fleet has a handful of column sets, because each is the union over a batch.
const STATEMENTS_MAX: usize = 64;
