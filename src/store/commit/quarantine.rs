//! The write of records into quarantine.

use super::quarantine_input::{QuarantineCap, inputs};
use crate::lane::Lane;
use crate::store::error::store_error::StoreError;
use crate::store::model::batch::Quarantined;
use crate::store::statements::BatchSession;

/// Writes records into quarantine, each once. Returns how many were over the cap.
pub(crate) async fn write_quarantine(
    session: &mut impl BatchSession,
    lane: Lane,
    records: &[Quarantined],
    cap: QuarantineCap,
) -> Result<u64, StoreError> {
    let (inputs, over) = inputs(records, cap);
    if inputs.is_empty() { Ok(over) } else { Ok(over + session.write_quarantine(lane, &inputs, cap).await?) }
}
