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

/// The device time of a record: its first eight bytes. `None` for a whole frame, and for a time after the year 9999.
pub(super) fn device_time(entry: &QuarantineEntry) -> Option<String> {
    entry.record_index?;
    let milliseconds = u64::from_be_bytes(*entry.bytes.first_chunk()?);
    let microseconds = i64::try_from(milliseconds).ok()?.checked_mul(1_000)?;
    (microseconds <= LAST_SHOWN_US).then(|| format_time(microseconds))
}

/// One object for scripts.
pub(super) fn object(entry: &QuarantineEntry) -> serde_json::Value {
    let device_time = device_time(entry);
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
        "received_at": format_time(*received_at_us), "device_time": device_time, "seen": seen, "journal": journal.to_string(),
        "position": position.0, "record_index": record_index, "codec": codec, "hex": hex::text(bytes),
    })
}

/// The end of the year 9999.
const LAST_SHOWN_US: i64 = 253_402_300_799_999_999;
/// Digits of an id that tell some thousands of records apart.
pub(super) const SHORT_ID: usize = 12;
