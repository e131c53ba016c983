//! How quarantined records are printed.

use std::io;

use crate::cli::error::CommandError;
use crate::cli::time_argument::format_time;
use crate::hex;
use crate::store::QuarantineEntry;

/// Ends a command that printed. A reader that closed the pipe early has what it wanted: not a failure.
pub(super) fn written(outcome: io::Result<()>) -> Result<(), CommandError> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(|e| CommandError::from_error(&e)),
    }
}

/// One object for scripts.
pub(super) fn object(entry: &QuarantineEntry) -> serde_json::Value {
    let QuarantineEntry {
        imei,
        digest,
        reason,
        detail,
        received_at_us,
        journal,
        position,
        record_index,
        codec,
        bytes,
        seen,
    } = entry;
    serde_json::json!({
        "id": hex::text(digest), "imei": imei.to_string(), "reason": reason, "detail": detail,
        "received_at": format_time(*received_at_us), "seen": seen, "journal": journal.to_string(),
        "position": position.0, "record_index": record_index, "codec": codec, "hex": hex::text(bytes),
    })
}

/// Digits of an id that tell some thousands of records apart.
pub(super) const SHORT_ID: usize = 12;
