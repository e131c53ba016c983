//! The transaction of a batch: the order of its steps, written once for every database that implements the port.
//!
//! Read [`COMMIT_ORDER`] first. Each step is a few statements of [`BatchSession`]. Any error ends the session, and with
//! it the transaction.

use super::bisect::{self, LatestParts, PositionParts};
use super::quarantine::write_quarantine;
use super::quarantine_input::QuarantineCap;
use super::reduce;
use super::write_strategy::WriteStrategy;
use crate::lane::Lane;
use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;
use crate::store::flags::batch::{self, CoveredKeys};
use crate::store::model::batch::{Batch, QuarantineReason, Quarantined};
use crate::store::model::committed::{Committed, Reduced, WritePath};
use crate::store::model::fence::{BatchSpan, CommitInDoubt, CommitOutcome, FenceDecision, decide};
use crate::store::session_slot::OpenSession;
use crate::store::statements::BatchSession;

/// A step of a batch's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitStep {
    /// Makes the session the owner of the lane.
    Claim,
    /// Begins the transaction.
    Begin,
    /// Reads the checkpoint under its lock and decides whether this lane may write. Settles a commit in doubt.
    Fence,
    /// Refuses to write if the database could drop rows silently, or store them twice.
    Guard,
    /// Writes the rows by the batch's strategy.
    Rows,
    /// Writes records that cannot become rows, and rows that the database refused.
    Quarantine,
    /// Writes messages.
    Messages,
    /// Shares the ledger's lock. The ledger does not change until the transaction ends.
    ShareLedger,
    /// Reads what is new in the ledger, and finds the rows of the batch that live flags cover.
    ReadLedger,
    /// Marks the batch's covered rows.
    FlagRows,
    /// Writes latest positions, except covered ones.
    Latest,
    /// Finds another latest position for devices whose latest one in the batch is covered.
    RepairLatest,
    /// Moves the checkpoint to the end of the batch.
    Checkpoint,
    /// Commits. Until the answer comes, the commit is in doubt.
    Commit,
}

/// The order in which every batch is committed.
///
/// The fence comes before any write. Rows come before quarantine, which takes the rows that the database refused. Slow
/// steps come before the ledger's lock, because flags wait for it. A statement of its own reads the ledger after the
/// lock: a statement that waited for the lock would see the ledger as it was before. Rows under a flag are marked, and
/// latest positions repaired, before other sessions can see the rows.
pub const COMMIT_ORDER: [CommitStep; 14] = [
    CommitStep::Claim,
    CommitStep::Begin,
    CommitStep::Fence,
    CommitStep::Guard,
    CommitStep::Rows,
    CommitStep::Quarantine,
    CommitStep::Messages,
    CommitStep::ShareLedger,
    CommitStep::ReadLedger,
    CommitStep::FlagRows,
    CommitStep::Latest,
    CommitStep::RepairLatest,
    CommitStep::Checkpoint,
    CommitStep::Commit,
];

/// One attempt to commit a batch.
pub(super) struct BatchTransaction<'a, S> {
    pub(super) open: &'a mut OpenSession<S>,
    pub(super) lane: Lane,
    pub(super) cap: QuarantineCap,
    pub(super) strategy: WriteStrategy,
    /// Sorted.
    pub(super) batch: &'a Batch,
    pub(super) span: &'a BatchSpan,
    /// Holds the commit from the moment that it is sent until it is answered, even if the future of the attempt is
    /// dropped.
    pub(super) doubt: &'a mut Option<CommitInDoubt>,
    pub(super) findings: Findings,
}

/// Results of earlier steps that later ones need.
pub(super) struct Findings {
    committed: Committed,
    /// Rows that the database refused.
    refused: Vec<Quarantined>,
    covered: CoveredKeys,
    reduced: Reduced,
}

impl Default for Findings {
    fn default() -> Self {
        let committed = Committed::new(0, 0, Vec::new(), WritePath::Copy);
        Self { committed, refused: Vec::new(), covered: CoveredKeys::default(), reduced: Reduced::default() }
    }
}

impl<S: BatchSession> BatchTransaction<'_, S> {
    pub(super) async fn run(mut self, order: &[CommitStep]) -> Result<CommitOutcome, StoreError> {
        for step in order {
            match step {
                CommitStep::Claim => self.open.claim_lane(self.lane).await?,
                CommitStep::Begin => self.begin().await?,
                CommitStep::Fence => {
                    if let FenceDecision::Settled(outcome) = self.fence().await? {
                        return Ok(outcome);
                    }
                }
                CommitStep::Guard => refuse_silent_loss(&mut self.open.session).await?,
                CommitStep::Rows => self.findings.committed = self.rows().await?,
                CommitStep::Quarantine => self.quarantine().await?,
                CommitStep::Messages => self.messages().await?,
                CommitStep::ShareLedger => batch::share_ledger(&mut self.open.session, self.batch).await?,
                CommitStep::ReadLedger => self.findings.covered = batch::read_ledger(self.open, self.batch).await?,
                CommitStep::FlagRows => batch::flag_rows(&mut self.open.session, &self.findings.covered).await?,
                CommitStep::Latest => self.latest().await?,
                CommitStep::RepairLatest => {
                    batch::repair_latest(&mut self.open.session, &self.findings.covered).await?;
                }
                CommitStep::Checkpoint => self.checkpoint().await?,
                CommitStep::Commit => self.commit().await?,
            }
        }
        Ok(CommitOutcome::Committed(self.findings.committed))
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        let only_new_rows = self.batch.perhaps_stored.is_empty() && self.batch.latest.is_empty();
        if self.strategy != WriteStrategy::Copy || !only_new_rows {
            self.open.session.prepare_staging().await?;
        }
        self.open.session.begin("beginning a transaction").await
    }

    async fn fence(&mut self) -> Result<FenceDecision, StoreError> {
        let stored = self.open.session.lock_checkpoint(self.lane).await?;
        let decision = decide(self.lane, self.span, self.doubt.as_ref(), stored);
        if let FenceDecision::Settled(_) = decision {
            self.open.session.rollback().await?;
        }
        // The commit that was in doubt is settled, or did not happen.
        *self.doubt = None;
        Ok(decision)
    }

    async fn rows(&mut self) -> Result<Committed, StoreError> {
        let (session, batch) = (&mut self.open.session, self.batch);
        match self.strategy {
            WriteStrategy::Copy => {
                let mut inserted = 0;
                if !batch.new.is_empty() {
                    inserted += session.copy_rows(&batch.new).await?;
                }
                if !batch.perhaps_stored.is_empty() {
                    inserted += session.insert_rows(&[&batch.perhaps_stored]).await?;
                }
                counted(batch, inserted, WritePath::Copy)
            }
            WriteStrategy::Conflict => {
                let inserted = session.insert_rows(&[&batch.new, &batch.perhaps_stored]).await?;
                counted(batch, inserted, WritePath::Conflict)
            }
            WriteStrategy::Bisect => self.bisect().await,
        }
    }

    /// Inserts every row that the database takes. Those that it refuses go into quarantine.
    async fn bisect(&mut self) -> Result<Committed, StoreError> {
        let (mut inserted, mut keys) = (0, Vec::new());
        for rows in [&self.batch.new, &self.batch.perhaps_stored] {
            let refused = &mut self.findings.refused;
            inserted += bisect::insert(&mut PositionParts(&mut self.open.session), rows.whole(), |row, error| {
                keys.push(row.key());
                refused.push(Quarantined::record(row, QuarantineReason::Refused, error.detail(), rows.wire(row)));
            })
            .await?;
        }
        let refused = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        let duplicates = self.batch.offered().saturating_sub(inserted).saturating_sub(refused);
        Ok(Committed::new(inserted, duplicates, keys, WritePath::Conflict))
    }

    async fn quarantine(&mut self) -> Result<(), StoreError> {
        let (mut capped, session, lane, cap) = (0, &mut self.open.session, self.lane, self.cap);
        for records in [&self.batch.quarantined, &self.findings.refused] {
            if self.strategy == WriteStrategy::Bisect && !records.is_empty() {
                let (reduced, over) = reduce::records(session, lane, records, cap).await?;
                self.findings.reduced.add(reduced);
                capped += over;
            } else {
                capped += write_quarantine(session, lane, records, cap).await?;
            }
        }
        self.findings.committed = self.findings.committed.clone().with_capped(capped);
        Ok(())
    }

    async fn messages(&mut self) -> Result<(), StoreError> {
        let (session, messages) = (&mut self.open.session, &self.batch.messages);
        if messages.is_empty() {
            return Ok(());
        }
        if self.strategy != WriteStrategy::Bisect {
            return session.write_messages(messages).await.map(drop);
        }
        let reduced = reduce::messages(session, messages).await?;
        self.findings.reduced.add(reduced);
        Ok(())
    }

    async fn latest(&mut self) -> Result<(), StoreError> {
        let covered = &self.findings.covered.latest;
        let without;
        let rows = if covered.is_empty() {
            &self.batch.latest
        } else {
            without = self.batch.latest.without(covered);
            &without
        };
        if rows.whole().is_empty() {
            return Ok(());
        }
        if self.strategy != WriteStrategy::Bisect {
            return self.open.session.write_latest(rows).await;
        }
        // The record of a refused latest position is in `positions` or in quarantine.
        let rows = rows.without(self.findings.committed.refused());
        bisect::insert(&mut LatestParts(&mut self.open.session), rows.whole(), |_, error| {
            tracing::warn!(detail = error.detail(), "the database refuses a latest position");
        })
        .await?;
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<(), StoreError> {
        let written = self.open.session.write_checkpoint(self.lane, &self.span.to).await?;
        if written == 1 { Ok(()) } else { Err(StoreError::miscounted(written, 1)) }
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        self.findings.committed = self.findings.committed.clone().with_reduced(self.findings.reduced);
        let committed = self.findings.committed.clone();
        *self.doubt = Some(CommitInDoubt { to: self.span.to.mark, committed });
        if let Err(error) = self.open.session.commit("committing").await {
            let error = error.doubtful();
            if !error.in_doubt() {
                *self.doubt = None;
            }
            return Err(error);
        }
        *self.doubt = None;
        Ok(())
    }
}

/// Fails if the database could drop a row silently, or store it twice.
pub(crate) async fn refuse_silent_loss(session: &mut impl BatchSession) -> Result<(), StoreError> {
    match session.silent_loss().await? {
        Some(cause) => Err(StoreError::new(ErrorClass::Refuses, "inspecting the tables", cause)),
        None => Ok(()),
    }
}

/// The result of the rows, if the database inserted no more than were offered.
fn counted(batch: &Batch, inserted: u64, path: WritePath) -> Result<Committed, StoreError> {
    let offered = batch.offered();
    let duplicates = offered.checked_sub(inserted).ok_or_else(|| StoreError::miscounted(inserted, offered))?;
    Ok(Committed::new(inserted, duplicates, Vec::new(), path))
}
