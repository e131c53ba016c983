//! Decoding again what the journal has kept, beside a running `serve`: the table comes to say what today's program and
//! settings make of the same bytes. Reads the journal's files only, and writes in small transactions like anybody else.
//!
//! Only what the lanes have committed is decoded again; what still waits is theirs. An end at any moment leaves whole
//! transactions behind, and the next run finds them unchanged.

mod decoder;
mod retry;

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use decoder::{Decoder, Refused, alone};
pub use retry::{Retried, retry};

use crate::ingest::drain::{TimeWindow, with_plausible_receive_time};
use crate::lane::lane_of;
use crate::store::{Differences, LanePosition, RewriteReport, Rewriter, StoreError};
use odograph_journal::system_us;
use odograph_journal::{Archive, Entry, Filter, OpenError};
use odograph_journal::{JournalId, Position};

/// What to decode again, and how.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Which entries.
    pub filter: Filter,
    /// Plausible device times.
    pub window: TimeWindow,
    /// Whether to write.
    pub mode: Mode,
}

/// Whether to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Make the tables follow.
    Write,
    /// Say what would change.
    Compare,
}

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Frames and messages that were decoded again.
    pub entries: u64,
    /// What became of their records.
    pub rewritten: RewriteReport,
    /// Records and frames that are no rows by today's program and settings.
    pub refused: Refused,
    /// How rows would change, if they were compared only.
    pub differences: Differences,
    /// Wanted entries that the lanes have not committed yet.
    pub left: u64,
    /// Segments that were given away before they were read.
    pub given_away: u64,
    /// Damaged places of the journal that were passed over.
    pub damages: u64,
    /// Receive time of the last entry that is settled, microseconds.
    pub reached_us: Option<i64>,
    /// It was stopped before the end.
    pub stopped: bool,
    /// Part of what is committed that was read, 0 to 1.
    pub share: f64,
}

impl Outcome {
    /// Records that were refused, for whatever reason.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.rewritten.refused + self.refused.undecodable + self.refused.time_window
    }
}

/// Why a replay ends early. What was committed until then is right.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The journal's files cannot be read.
    #[error("cannot read the journal")]
    Journal(#[from] OpenError),
    /// The database fails.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// Nothing of this journal is in this database.
    #[error(
        "this database knows nothing of journal {0}: serve has not written from it there. Is DATABASE_URL the one of serve, and \
         did the database answer since the journal was made?"
    )]
    Unknown(JournalId),
}

/// Decodes again what the filter wants; tells `progress` after every transaction what was done so far. `stop` ends it between
/// two transactions.
///
/// # Errors
/// `progress` was told what had been done.
pub async fn run(
    archive: &Archive,
    rewriter: &mut Rewriter,
    request: &Request,
    stop: &CancellationToken,
    mut progress: impl FnMut(&Outcome),
) -> Result<Outcome, ReplayError> {
    let committed = Committed::new(rewriter.lanes(archive.id()).await?).ok_or(ReplayError::Unknown(archive.id()))?;
    let mut entries = archive.entries(request.filter)?;
    let decoder = Decoder::new(archive.id(), request.window);
    let mut decoder = if request.mode == Mode::Compare { decoder.without_repeats() } else { decoder };
    let mut outcome = Outcome::default();
    let (mut begin, mut received_us) = (None, None);
    loop {
        let entry = entries.next()?;
        if let Some(entry) = entry {
            if committed.holds(&entry) {
                let begin = *begin.get_or_insert(entry.position.0);
                outcome.share = committed.share(begin, entry.position);
                received_us = Some(entry.entry.received_at_us);
                outcome.entries += 1;
                let Entry { position, entry } = with_plausible_receive_time(entry, system_us);
                decoder.entry(position, &entry);
            } else {
                outcome.left += 1;
            }
        }
        let over = entry.is_none();
        if (over && !decoder.is_empty()) || decoder.is_full(rewriter.batch_rows()) {
            let since = Instant::now();
            write(&mut decoder, rewriter, request.mode, &mut outcome).await?;
            outcome.reached_us = received_us;
            progress(&outcome);
            if request.mode == Mode::Write && !over {
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
            outcome.share = 1.0;
            break;
        }
        if stop.is_cancelled() && decoder.is_empty() {
            outcome.stopped = true;
            break;
        }
    }
    (outcome.given_away, outcome.damages) = (entries.given_away(), entries.damages());
    progress(&outcome);
    Ok(outcome)
}

/// Writes or compares what was decoded, and begins anew.
async fn write(
    decoder: &mut Decoder,
    rewriter: &mut Rewriter,
    mode: Mode,
    outcome: &mut Outcome,
) -> Result<(), StoreError> {
    let rewritten = match mode {
        Mode::Write => rewriter.rewrite(decoder.again()).await?,
        Mode::Compare => rewriter.compare(decoder.again(), &mut outcome.differences).await?,
    };
    outcome.rewritten.add(rewritten);
    let (refused, repeats) = decoder.take_rest();
    outcome.refused.add(refused);
    outcome.rewritten.unchanged += repeats;
    Ok(())
}

/// What the lanes had committed when it began.
struct Committed {
    /// By lane.
    lanes: Vec<Position>,
    furthest: Position,
}

impl Committed {
    fn new(stand: Vec<LanePosition>) -> Option<Self> {
        let number = stand.iter().map(|lane| lane.lanes).max()?.max(1);
        let mut lanes = vec![Position(0); usize::from(number)];
        for LanePosition { number, position, .. } in stand {
            if let Some(lane) = lanes.get_mut(usize::from(number)) {
                *lane = position;
            }
        }
        let furthest = lanes.iter().copied().max().unwrap_or_default();
        Some(Self { lanes, furthest })
    }

    fn holds(&self, entry: &Entry<'_>) -> bool {
        let lanes = u16::try_from(self.lanes.len()).unwrap_or(u16::MAX);
        let lane = usize::from(lane_of(entry.entry.imei, lanes));
        self.lanes.get(lane).is_some_and(|committed| entry.position < *committed)
    }

    #[expect(clippy::cast_precision_loss, reason = "a bar")]
    fn share(&self, begin: u64, at: Position) -> f64 {
        let all = self.furthest.0.saturating_sub(begin).max(1);
        at.0.saturating_sub(begin) as f64 / all as f64
    }
}

const LONGEST_PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use teltonika_codecs::Imei;

    use super::*;
    use odograph_journal::{EntryKind, NewEntry};

    #[test]
    fn an_entry_is_committed_where_its_own_lane_has_passed_it() {
        let stand = |number, position| LanePosition { number, lanes: 2, position: Position(position) };
        let committed = Committed::new(vec![stand(0, 100), stand(1, 50)]).unwrap();
        let of_lane = |lane| {
            let imeis = (1..100).map(|number| Imei::try_from(number).unwrap());
            imeis.into_iter().find(|imei| lane_of(*imei, 2) == lane).unwrap()
        };
        let holds = |lane, position| {
            let entry =
                NewEntry { kind: EntryKind::Frame, imei: of_lane(lane), received_at_us: 0, records: 1, bytes: &[] };
            committed.holds(&Entry { position: Position(position), entry })
        };
        assert!(holds(0, 99) && !holds(0, 100));
        assert!(holds(1, 49) && !holds(1, 50));
        assert!(Committed::new(Vec::new()).is_none());
        let half = Committed::new(vec![stand(1, 50)]).unwrap();
        assert_eq!(half.lanes, [Position(0), Position(50)], "a lane that is not known has committed nothing");
    }
}
