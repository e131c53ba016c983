//! Trying again what is in quarantine: its bytes are there, so it needs no journal.

use tokio_util::sync::CancellationToken;

use super::{Decoder, Mode};
use crate::ingest::drain::TimeWindow;
use crate::store::{
    Differences, Quarantine, QuarantineEntry, QuarantineFilter, QuarantineReason, RewriteReport, Rewriter, StoreError,
};
use odograph_journal::{EntryKind, NewEntry};

/// What became of what was tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Records and whole frames that were tried.
    pub tried: u64,
    /// What became of their rows. `resolved` of those that were tried are gone from quarantine.
    pub rewritten: RewriteReport,
    /// Those that stay, by [`QuarantineReason`].
    pub stay: [u64; QuarantineReason::ALL.len()],
    /// It was stopped before the end.
    pub stopped: bool,
}

/// Decodes what the filter means again, oldest first; what becomes a row leaves the quarantine in the same transaction. Tells
/// `progress` after each.
///
/// # Errors
/// When the database fails. What was committed until then is right, and `progress` was told.
pub async fn retry(
    quarantine: &mut Quarantine,
    rewriter: &mut Rewriter,
    (filter, window, mode): (&QuarantineFilter, TimeWindow, Mode),
    stop: &CancellationToken,
    mut progress: impl FnMut(&Retried),
) -> Result<Retried, StoreError> {
    let (mut retried, mut cursor) = (Retried::default(), None);
    loop {
        let page = quarantine.after(filter, cursor, PAGE).await?;
        let Some(last) = page.last() else { return Ok(retried) };
        cursor = Some(last.cursor());
        // Messages are known by their journal.
        for kept in page.chunk_by(|one, next| one.journal == next.journal) {
            some(kept, rewriter, window, mode, &mut retried).await?;
        }
        progress(&retried);
        if stop.is_cancelled() {
            retried.stopped = true;
            return Ok(retried);
        }
        tokio::task::yield_now().await;
    }
}

async fn some(
    kept: &[QuarantineEntry],
    rewriter: &mut Rewriter,
    window: TimeWindow,
    mode: Mode,
    retried: &mut Retried,
) -> Result<(), StoreError> {
    let Some(first) = kept.first() else { return Ok(()) };
    let (mut decoder, mut stay) = (Decoder::new(first.journal, window), [0; QuarantineReason::ALL.len()]);
    for one in kept {
        let QuarantineEntry { imei, received_at_us, position, codec, record_index, ref bytes, .. } = *one;
        let entry = NewEntry { kind: EntryKind::Undecodable, imei, received_at_us, records: 0, bytes };
        let refused = match record_index {
            Some(index) => decoder.quarantined_record(position, (codec, index), &entry),
            None => decoder.quarantined_frame(position, &entry),
        };
        if let Some(reason) = refused {
            stay[reason as usize] += 1;
        }
    }
    let rewritten = match mode {
        Mode::Write => rewriter.rewrite(decoder.again()).await?,
        Mode::Compare => rewriter.compare(decoder.again(), &mut Differences::default()).await?,
    };
    stay[QuarantineReason::Refused as usize] += rewritten.refused;
    retried.tried += u64::try_from(kept.len()).unwrap_or(u64::MAX);
    retried.rewritten.add(rewritten);
    retried.stay.iter_mut().zip(stay).for_each(|(sum, more)| *sum += more);
    Ok(())
}

/// Rows in one transaction, unless whole frames are among them.
const PAGE: u32 = 500;
