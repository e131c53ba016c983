//! The third strategy: a batch in which the database refuses some row. Halves are tried within savepoints until the refused rows
//! stand alone; they go into quarantine, and all others commit.

use super::sql::StatementKind;
use super::transaction::Transaction;
use crate::store::error::classify::SqlErrorKind;
use crate::store::model::batch::{Batch, QuarantineReason, Quarantined};
use crate::store::model::row::Row;
use crate::store::model::rows::{RowSlice, Rows};
use crate::store::{Committed, StoreError, WritePath};

/// Inserts every row that the database takes; those that it refuses are added to `quarantined`.
pub(crate) async fn insert(
    transaction: &mut Transaction<'_>,
    batch: &Batch,
    quarantined: &mut Vec<Quarantined>,
) -> Result<Committed, StoreError> {
    let (mut inserted, mut keys) = (0, Vec::new());
    for rows in [&batch.new, &batch.perhaps_stored] {
        let into = [StatementKind::CopyIncoming, StatementKind::InsertPositions];
        inserted += divide(transaction, rows.whole(), into, |row, error| {
            keys.push(row.key());
            quarantined.push(Quarantined::record(row, QuarantineReason::Refused, error.detail(), rows.wire(row)));
        })
        .await?;
    }
    let refused = u64::try_from(keys.len()).unwrap_or(u64::MAX);
    let duplicates = batch.offered().saturating_sub(inserted).saturating_sub(refused);
    Ok(Committed::new(inserted, duplicates, keys, WritePath::Conflict))
}

/// Writes every latest position that the database takes. One that it does not take is left out: its record is in
/// `positions` or in quarantine.
pub(crate) async fn newest(transaction: &mut Transaction<'_>, rows: &Rows) -> Result<(), StoreError> {
    let into = [StatementKind::CopyNewest, StatementKind::InsertNewest];
    divide(transaction, rows.whole(), into, |_, error| {
        tracing::warn!(detail = error.detail(), "the database refuses a latest position");
    })
    .await?;
    Ok(())
}

/// Gives the number of rows that were written.
pub(crate) async fn divide(
    transaction: &mut Transaction<'_>,
    whole: RowSlice<'_>,
    into: [StatementKind; 2],
    mut refuse: impl FnMut(&Row, &StoreError),
) -> Result<u64, StoreError> {
    const DIVIDING: &str = "setting a savepoint";
    let mut inserted = 0;
    let mut parts = vec![whole];
    while let Some(part) = parts.pop() {
        if part.len() == 0 {
            continue;
        }
        transaction.connection.batch(DIVIDING, "SAVEPOINT part").await?;
        match transaction.insert_part(part, into).await {
            Ok(written) => {
                inserted += written;
                // What lies in the temporary tables must not be inserted with the next part.
                let forget = "TRUNCATE incoming, incoming_newest; RELEASE part";
                transaction.connection.batch(DIVIDING, forget).await?;
            }
            Err(error) if error.kind() == SqlErrorKind::Row => {
                transaction.connection.batch(DIVIDING, "ROLLBACK TO part; RELEASE part").await?;
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
