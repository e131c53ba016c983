//! The replay of a journal: decodes committed entries again and writes or compares them in small transactions.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::committed_lanes::CommittedLanes;
use super::decoder::Decoder;
use super::request::{ReplayError, ReplayMode, ReplayReport, ReplayRequest};
use crate::ingest::drain::with_plausible_receive_time;
use crate::store::{Rewriter, StoreError};
use odograph_journal::{Archive, Entry, unix_now_us};

/// Decodes again what the filter wants; tells `progress` after every transaction what was done so far. `stop` ends it between
/// two transactions.
///
/// # Errors
/// `progress` was told what had been done.
pub async fn run(
    archive: &Archive,
    rewriter: &mut Rewriter,
    request: &ReplayRequest,
    stop: &CancellationToken,
    mut progress: impl FnMut(&ReplayReport),
) -> Result<ReplayReport, ReplayError> {
    let committed =
        CommittedLanes::new(rewriter.lanes(archive.id()).await?).ok_or(ReplayError::Unknown(archive.id()))?;
    let mut entries = archive.entries(request.filter)?;
    let decoder = Decoder::new(archive.id(), request.window);
    let mut decoder = if request.mode == ReplayMode::Compare { decoder.without_repeats() } else { decoder };
    let mut report = ReplayReport::default();
    let (mut begin, mut received_us) = (None, None);
    loop {
        let entry = entries.next()?;
        if let Some(entry) = entry {
            if committed.holds(&entry) {
                let begin = *begin.get_or_insert(entry.position.0);
                report.share = committed.share(begin, entry.position);
                received_us = Some(entry.entry.received_at_us);
                report.entries += 1;
                let Entry { position, tag, entry } = with_plausible_receive_time(entry, unix_now_us);
                decoder.entry(position, archive.content_id(tag), &entry);
            } else {
                report.left += 1;
            }
        }
        let over = entry.is_none();
        if (over && !decoder.is_empty()) || decoder.is_full(rewriter.batch_rows()) {
            let since = Instant::now();
            write(&mut decoder, rewriter, request.mode, &mut report).await?;
            report.reached_us = received_us;
            progress(&report);
            if request.mode == ReplayMode::Write && !over {
                // Whoever writes at the same time has the database for a while.
                tokio::select! {
                    () = sleep((since.elapsed() / 2).min(LONGEST_PAUSE)) => {}
                    () = stop.cancelled() => {}
                }
            } else {
                tokio::task::yield_now().await;
            }
        }
        if over {
            report.share = 1.0;
            break;
        }
        if stop.is_cancelled() && decoder.is_empty() {
            report.stopped = true;
            break;
        }
    }
    (report.given_away, report.damages) = (entries.given_away(), entries.damages());
    progress(&report);
    Ok(report)
}

/// Writes or compares what was decoded, and empties the decoder.
async fn write(
    decoder: &mut Decoder,
    rewriter: &mut Rewriter,
    mode: ReplayMode,
    report: &mut ReplayReport,
) -> Result<(), StoreError> {
    let rewritten = match mode {
        ReplayMode::Write => rewriter.rewrite(decoder.again()).await?,
        ReplayMode::Compare => rewriter.compare(decoder.again(), &mut report.differences).await?,
    };
    report.rewritten.add(rewritten);
    let (refused, repeats) = decoder.take_rest();
    report.refused.add(refused);
    report.rewritten.unchanged += repeats;
    Ok(())
}

const LONGEST_PAUSE: Duration = Duration::from_millis(250);
