//! Writes one lane to a database. Owns the session, the strategy of the next batch, and the commit in doubt.

use super::quarantine_input::QuarantineCap;
use super::script::{BatchTransaction, COMMIT_ORDER, CommitStep, Findings};
use super::write_strategy::{WriteStrategy, next_strategy};
use crate::lane::Lane;
use crate::store::error::store_error::StoreError;
use crate::store::model::batch::Batch;
use crate::store::model::fence::{BatchSpan, Checkpoint, CommitInDoubt, CommitOutcome, starting_checkpoint};
use crate::store::model::migration::Schema;
use crate::store::port::Store;
use crate::store::session_slot::{SessionSlot, bounded, within};
use crate::store::statements::{BatchSession, Connect};

/// Writes one lane over one session.
pub struct LaneWriter<C: Connect> {
    sessions: SessionSlot<C>,
    lane: Lane,
    /// A commit that was sent and not answered.
    doubt: Option<CommitInDoubt>,
    /// The first strategy of the next batch: COPY, unless the last batch met rows that were not new.
    strategy: WriteStrategy,
    cap: QuarantineCap,
    order: &'static [CommitStep],
}

impl<C: Connect> LaneWriter<C> {
    /// Creates the writer of a lane. It connects with its first operation.
    pub const fn over(connect: C, lane: Lane) -> Self {
        let sessions = SessionSlot::new(connect);
        Self { sessions, lane, doubt: None, strategy: WriteStrategy::Copy, cap: None, order: &COMMIT_ORDER }
    }

    /// Limits the records that quarantine holds of a device and hour.
    #[must_use]
    pub fn keeping(self, cap: QuarantineCap) -> Self {
        Self { cap, ..self }
    }

    /// Replaces the order of the steps. The simulation breaks the order on purpose, to prove that it finds every wrong
    /// one. The product never calls this: it commits in [`COMMIT_ORDER`].
    #[doc(hidden)]
    #[must_use]
    pub fn in_order(self, order: &'static [CommitStep]) -> Self {
        Self { order, ..self }
    }
}

impl<C: Connect + Send> LaneWriter<C>
where
    C::Session: BatchSession,
{
    async fn attempt(
        &mut self,
        strategy: WriteStrategy,
        batch: &Batch,
        span: &BatchSpan,
    ) -> Result<CommitOutcome, StoreError> {
        let mut open = self.sessions.take().await?;
        let (lane, cap, doubt, findings) = (self.lane, self.cap, &mut self.doubt, Findings::default());
        let transaction = BatchTransaction { open: &mut open, lane, cap, strategy, batch, span, doubt, findings };
        let outcome = within(strategy.patience(), "committing a batch", transaction.run(self.order)).await?;
        self.sessions.put(open);
        Ok(outcome)
    }
}

impl<C: Connect + Send> Store for LaneWriter<C>
where
    C::Session: BatchSession,
{
    fn assign(&mut self, lane: Lane) {
        // The claim of the old lane ends with the session.
        self.sessions.close();
        (self.lane, self.doubt) = (lane, None);
    }

    async fn open_lane(&mut self) -> Result<Checkpoint, StoreError> {
        let (mut open, lane) = (self.sessions.take().await?, self.lane);
        let opening = async {
            open.claim_lane(lane).await?;
            open_lane(&mut open.session, lane).await
        };
        let checkpoint = bounded(OPENING, opening).await?;
        self.sessions.put(open);
        Ok(checkpoint)
    }

    async fn commit(&mut self, batch: &mut Batch, span: &BatchSpan) -> Result<CommitOutcome, StoreError> {
        batch.sort();
        let mut strategy = self.strategy;
        loop {
            let error = match self.attempt(strategy, batch, span).await {
                Ok(CommitOutcome::Committed(committed)) => {
                    self.strategy = next_strategy(strategy, batch, committed.duplicates());
                    return Ok(CommitOutcome::Committed(committed));
                }
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            match strategy.after(error.kind()) {
                Some(next) if self.doubt.is_none() => strategy = next,
                _ => return Err(error.with_doubt(self.doubt.is_some())),
            }
        }
    }

    async fn retire(&mut self) -> Result<(), StoreError> {
        let (mut open, lane) = (self.sessions.take().await?, self.lane);
        let forgetting = async {
            open.claim_lane(lane).await?;
            open.session.forget_lanes(lane).await
        };
        bounded("forgetting a journal", forgetting).await?;
        self.sessions.put(open);
        Ok(())
    }

    async fn schema(&mut self) -> Result<Schema, StoreError> {
        let mut open = self.sessions.take().await?;
        let schema = bounded("looking at the schema", open.session.schema()).await?;
        self.sessions.put(open);
        Ok(schema)
    }

    async fn server_now_us(&mut self) -> Result<Option<i64>, StoreError> {
        let mut open = self.sessions.take().await?;
        let now = bounded("asking the server for its time", open.session.server_now_us()).await?;
        self.sessions.put(open);
        Ok(now)
    }

    async fn close(&mut self) {
        self.sessions.close();
    }
}

/// Returns the lane's checkpoint. Writes new rows for all lanes of the journal if the journal is new, or if their
/// number has changed.
async fn open_lane(session: &mut impl BatchSession, lane: Lane) -> Result<Checkpoint, StoreError> {
    session.begin(OPENING).await?;
    session.lock_lanes(lane).await?;
    let stored = session.read_lanes(lane).await?;
    let (checkpoint, is_new) = starting_checkpoint(lane, &stored);
    if is_new {
        session.forget_lanes(lane).await?;
        session.make_lanes(lane, &checkpoint).await?;
    }
    session.commit(OPENING).await?;
    Ok(checkpoint)
}

const OPENING: &str = "opening a lane";
