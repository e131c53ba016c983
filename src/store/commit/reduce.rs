//! Messages and quarantined records that the database refuses: written without their text, then without their bytes, then
//! only counted. Each alone, so that no other one suffers. Nothing but the checkpoint can hold up a lane for good.

use super::quarantine::write_quarantine;
use super::quarantine_input::QuarantineCap;
use crate::lane::Lane;
use crate::store::error::classify::SqlErrorKind;
use crate::store::error::store_error::StoreError;
use crate::store::model::batch::{Message, Quarantined};
use crate::store::model::committed::Reduced;
use crate::store::statements::BatchSession;

/// Writes messages as far as the database takes them.
pub(super) async fn messages<S: BatchSession>(session: &mut S, messages: &[Message]) -> Result<Reduced, StoreError> {
    let mut reduced = Reduced::default();
    if write_messages(session, messages).await? {
        return Ok(reduced);
    }
    for message in messages {
        let mut forms = message_forms(message).into_iter().enumerate();
        let written = loop {
            let Some((form, smaller)) = forms.next() else { break None };
            if write_messages(session, &[smaller]).await? {
                break Some(form);
            }
        };
        reduced.count(written);
    }
    Ok(reduced)
}

/// Writes quarantined records as far as the database takes them. Returns also how many were over the cap.
pub(super) async fn records<S: BatchSession>(
    session: &mut S,
    lane: Lane,
    records: &[Quarantined],
    cap: QuarantineCap,
) -> Result<(Reduced, u64), StoreError> {
    let mut reduced = Reduced::default();
    if let Some(capped) = write_records(session, lane, records, cap).await? {
        return Ok((reduced, capped));
    }
    let mut capped = 0;
    for record in records {
        let mut forms = record_forms(record).into_iter().enumerate();
        let written = loop {
            let Some((form, smaller)) = forms.next() else { break None };
            if let Some(over) = write_records(session, lane, &[smaller], cap).await? {
                capped += over;
                break Some(form);
            }
        };
        reduced.count(written);
    }
    Ok((reduced, capped))
}

/// A message, and what is left of it, the largest form first.
pub(crate) fn message_forms(message: &Message) -> [Message; 3] {
    let without_text = Message { text: None, ..message.clone() };
    let without_bytes = Message { bytes: Vec::new(), ..without_text.clone() };
    [message.clone(), without_text, without_bytes]
}

/// A quarantined record, and what is left of it, the largest form first.
pub(crate) fn record_forms(record: &Quarantined) -> [Quarantined; 3] {
    let without_detail = Quarantined { detail: String::new(), ..record.clone() };
    let without_bytes = Quarantined { bytes: Vec::new(), ..without_detail.clone() };
    [record.clone(), without_detail, without_bytes]
}

/// Returns whether the database took the messages.
async fn write_messages<S: BatchSession>(session: &mut S, messages: &[Message]) -> Result<bool, StoreError> {
    session.savepoint().await?;
    let written = session.write_messages(messages).await;
    Ok(settle(session, written).await?.is_some())
}

/// Returns how many records were over the cap, or `None` if the database refuses them.
async fn write_records<S: BatchSession>(
    session: &mut S,
    lane: Lane,
    records: &[Quarantined],
    cap: QuarantineCap,
) -> Result<Option<u64>, StoreError> {
    session.savepoint().await?;
    let written = write_quarantine(session, lane, records, cap).await;
    settle(session, written).await
}

/// Keeps what was written since the savepoint, or undoes it if the database refuses the content.
async fn settle<S: BatchSession>(session: &mut S, written: Result<u64, StoreError>) -> Result<Option<u64>, StoreError> {
    match written {
        Ok(count) => {
            session.keep_part().await?;
            Ok(Some(count))
        }
        Err(error) if error.kind() == SqlErrorKind::Row => {
            session.undo_part().await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
