//! Decodes the records of the quarantine again. Their bytes are in the database, so this needs no journal.

use tokio_util::sync::CancellationToken;

use super::decoder::Decoder;
use super::request::ReplayMode;
use crate::ingest::drain::TimeWindow;
use crate::store::{
    Differences, Quarantine, QuarantineEntry, QuarantineFilter, QuarantineReason, RewriteReport, Rewriter, StoreError,
};
use odograph_journal::{EntryKind, NewEntry};

/// What came of a retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryReport {
    /// Records and whole frames that were decoded again.
    pub tried: u64,
    /// Their rows. `resolved` of the tried entries are gone from the quarantine.
    pub rewritten: RewriteReport,
    /// Entries that stay, by [`QuarantineReason`].
    pub stay: [u64; QuarantineReason::ALL.len()],
    /// It was stopped before the end.
    pub stopped: bool,
}

/// Decodes the entries of the filter again, oldest first. A record that becomes a row leaves the quarantine in the same
/// transaction. Calls `progress` after each.
///
/// # Errors
/// When the database fails. What was committed until then is right, and `progress` was told.
pub async fn retry(
    quarantine: &mut Quarantine,
    rewriter: &mut Rewriter,
    (filter, window, mode): (&QuarantineFilter, TimeWindow, ReplayMode),
    stop: &CancellationToken,
    mut progress: impl FnMut(&RetryReport),
) -> Result<RetryReport, StoreError> {
    let (mut report, mut cursor) = (RetryReport::default(), None);
    loop {
        let page = quarantine.after(filter, cursor, PAGE).await?;
        let Some(last) = page.last() else { return Ok(report) };
        cursor = Some(last.cursor());
        // Messages are known by their journal.
        for entries in page.chunk_by(|one, next| one.journal == next.journal) {
            retry_entries(entries, rewriter, window, mode, &mut report).await?;
        }
        progress(&report);
        if stop.is_cancelled() {
            report.stopped = true;
            return Ok(report);
        }
        tokio::task::yield_now().await;
    }
}

async fn retry_entries(
    entries: &[QuarantineEntry],
    rewriter: &mut Rewriter,
    window: TimeWindow,
    mode: ReplayMode,
    report: &mut RetryReport,
) -> Result<(), StoreError> {
    let Some(first) = entries.first() else { return Ok(()) };
    let (mut decoder, mut stay) = (Decoder::new(first.journal, window), [0; QuarantineReason::ALL.len()]);
    for entry in entries {
        let QuarantineEntry { imei, received_at_us, journal, position, codec, record_index, ref bytes, .. } = *entry;
        let frame = NewEntry { kind: EntryKind::Undecodable, imei, received_at_us, records: 0, bytes };
        let refused = match record_index {
            Some(index) => decoder.quarantined_record(position, (codec, index), &frame),
            None => decoder.quarantined_frame(position, journal.uuid(), &frame),
        };
        if let Some(reason) = refused {
            stay[reason as usize] += 1;
        }
    }
    let rewritten = match mode {
        ReplayMode::Write => rewriter.rewrite(decoder.again()).await?,
        ReplayMode::Compare => rewriter.compare(decoder.again(), &mut Differences::default()).await?,
    };
    stay[QuarantineReason::Refused as usize] += rewritten.refused;
    report.tried += u64::try_from(entries.len()).unwrap_or(u64::MAX);
    report.rewritten.add(rewritten);
    report.stay.iter_mut().zip(stay).for_each(|(sum, more)| *sum += more);
    Ok(())
}

/// Rows in one transaction, unless whole frames are among them.
const PAGE: u32 = 500;
