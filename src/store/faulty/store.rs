//! A lane's store: as the one for PostgreSQL goes about it, over sessions of this database.

use tokio::time::timeout;

use super::locks::{Lock, Mode, Until};
use super::session::{Session, Shared};
use super::transaction::Transaction;
use super::{FaultyDatabase, Flaw};
use crate::store::commit::write_strategy::{WriteStrategy, next_strategy};
use crate::store::error::store_error::CLAIMING;
use crate::store::model::fence::{
    BatchSpan, Checkpoint, CommitInDoubt, CommitOutcome, Lane, StoredCheckpoint, starting_checkpoint,
};
use crate::store::{Batch, Schema, Store, StoreError};

/// Writes one lane to a [`FaultyDatabase`].
pub struct FaultyStore {
    server: Shared,
    lane: Lane,
    /// Taken out for each operation and put back only when all went well.
    session: Option<Session>,
    /// The commit that was sent and not answered.
    doubt: Option<CommitInDoubt>,
    strategy: WriteStrategy,
}

impl FaultyStore {
    /// For a lane, without connecting.
    #[must_use]
    pub fn new(database: &FaultyDatabase, lane: Lane) -> Self {
        Self { server: database.shared(), lane, session: None, doubt: None, strategy: WriteStrategy::Copy }
    }

    fn session(&mut self) -> Result<Session, StoreError> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => Session::open(&self.server),
        }
    }

    async fn claimed(&mut self) -> Result<Session, StoreError> {
        let mut session = self.session()?;
        if !session.has_lane {
            let lane = Lock::Lane((self.lane.journal.to_bytes(), self.lane.number));
            session
                .statement(CLAIMING, |server, backend, _| match server.flaw {
                    Some(Flaw::PlainFence) => Ok(()),
                    _ => server.lock(backend, lane, Mode::Alone, Until::EndOfSession),
                })
                .await?;
            session.has_lane = true;
        }
        Ok(session)
    }

    async fn attempt(
        &mut self,
        strategy: WriteStrategy,
        batch: &Batch,
        step: &BatchSpan,
    ) -> Result<CommitOutcome, StoreError> {
        let mut session = self.claimed().await?;
        let mut transaction = Transaction { session: &mut session, lane: self.lane };
        let outcome = timeout(strategy.patience(), transaction.run(strategy, batch, step, &mut self.doubt))
            .await
            .map_err(|_| StoreError::timed_out("committing a batch", strategy.patience()))??;
        self.session = Some(session);
        Ok(outcome)
    }
}

impl Store for FaultyStore {
    fn assign(&mut self, lane: Lane) {
        (self.lane, self.session, self.doubt) = (lane, None, None);
    }

    async fn open_lane(&mut self) -> Result<Checkpoint, StoreError> {
        const OPENING: &str = "opening a lane";
        let mut session = self.claimed().await?;
        let (journal, lane) = (self.lane.journal.to_bytes(), self.lane);
        let checkpoint = session.statement(OPENING, |server, backend, _| {
            server.alone(backend, Lock::Lane((journal, u16::MAX)))?;
            let rows = server.tables.checkpoints.range((journal, 0)..=(journal, u16::MAX));
            let (places, found): (Vec<_>, Vec<_>) = rows.map(|(place, stored)| (*place, *stored)).unzip();
            let fenced = server.flaw != Some(Flaw::PlainFence);
            for place in places.iter().filter(|_| fenced) {
                // On the way to a lock nothing was changed, so all is read again once it is there.
                server.alone(backend, Lock::Fence(*place))?;
            }
            let (checkpoint, make) = starting_checkpoint(lane, &found);
            if make {
                let writes = server.writes(backend);
                writes.checkpoints.extend(places.into_iter().map(|place| (place, None)));
                let stands = StoredCheckpoint { lanes: lane.lanes, checkpoint };
                writes.checkpoints.extend((0..lane.lanes).map(|number| ((journal, number), Some(stands))));
            }
            Ok(checkpoint)
        });
        let checkpoint = checkpoint.await?;
        session.commit().await?;
        self.session = Some(session);
        Ok(checkpoint)
    }

    async fn commit(&mut self, batch: &mut Batch, step: &BatchSpan) -> Result<CommitOutcome, StoreError> {
        batch.sort();
        let mut strategy = self.strategy;
        loop {
            let error = match self.attempt(strategy, batch, step).await {
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
        self.session = None;
        Ok(())
    }

    async fn schema(&mut self) -> Result<Schema, StoreError> {
        let mut session = self.session()?;
        session.statement("looking at the schema", |_, _, _| Ok(())).await?;
        self.session = Some(session);
        Ok(Schema::Current)
    }

    async fn close(&mut self) {
        self.session = None;
    }
}
