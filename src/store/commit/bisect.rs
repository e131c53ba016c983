//! Finds the rows that the database refuses: inserts halves within savepoints until each refused row is alone.

use crate::store::error::classify::SqlErrorKind;
use crate::store::error::store_error::StoreError;
use crate::store::model::row::Row;
use crate::store::model::rows::RowSlice;
use crate::store::statements::{BatchSession, PartTable};

/// Inserts parts of rows within savepoints.
pub(crate) trait PartWriter {
    fn savepoint(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Returns the number of rows that were written.
    fn insert(&mut self, part: RowSlice<'_>) -> impl Future<Output = Result<u64, StoreError>> + Send;
    fn keep(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn undo(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Inserts every row that the database takes, and hands the others to `refuse`. Returns the number of rows written.
pub(crate) async fn insert(
    writer: &mut impl PartWriter,
    rows: RowSlice<'_>,
    mut refuse: impl FnMut(&Row, &StoreError),
) -> Result<u64, StoreError> {
    let mut inserted = 0;
    let mut parts = vec![rows];
    while let Some(part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        writer.savepoint().await?;
        match writer.insert(part).await {
            Ok(written) => {
                inserted += written;
                writer.keep().await?;
            }
            Err(error) if error.kind() == SqlErrorKind::Row => {
                writer.undo().await?;
                match part.halves() {
                    Ok([front, back]) => parts.extend([back, front]),
                    Err(row) => row.into_iter().for_each(|row| refuse(row, &error)),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(inserted)
}

/// Parts that go into `positions`.
pub(super) struct PositionParts<'a, S>(pub(super) &'a mut S);

/// Parts that go into `latest_positions`.
pub(super) struct LatestParts<'a, S>(pub(super) &'a mut S);

impl<S: BatchSession> PartWriter for PositionParts<'_, S> {
    async fn savepoint(&mut self) -> Result<(), StoreError> {
        self.0.savepoint().await
    }

    async fn insert(&mut self, part: RowSlice<'_>) -> Result<u64, StoreError> {
        self.0.insert_part(part, PartTable::Positions).await
    }

    async fn keep(&mut self) -> Result<(), StoreError> {
        self.0.keep_part().await
    }

    async fn undo(&mut self) -> Result<(), StoreError> {
        self.0.undo_part().await
    }
}

impl<S: BatchSession> PartWriter for LatestParts<'_, S> {
    async fn savepoint(&mut self) -> Result<(), StoreError> {
        self.0.savepoint().await
    }

    async fn insert(&mut self, part: RowSlice<'_>) -> Result<u64, StoreError> {
        self.0.insert_part(part, PartTable::Latest).await
    }

    async fn keep(&mut self) -> Result<(), StoreError> {
        self.0.keep_part().await
    }

    async fn undo(&mut self) -> Result<(), StoreError> {
        self.0.undo_part().await
    }
}
