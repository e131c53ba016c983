//! The store that ships. It counts batches that the fence refused, for the oracle.

use odograph::store::{
    Batch, BatchSpan, Checkpoint, CommitOutcome, CommitStep, Lane, LaneWriter, Schema, Store, StoreError,
};

use crate::database::SimDatabase;

/// A lane's writer over the simulated database.
pub struct WatchedStore {
    inner: LaneWriter<SimDatabase>,
    database: SimDatabase,
}

impl WatchedStore {
    pub fn new(database: &SimDatabase, lane: Lane, order: &'static [CommitStep]) -> Self {
        let inner = LaneWriter::over(database.clone(), lane).in_order(order);
        Self { inner, database: database.clone() }
    }
}

impl Store for WatchedStore {
    fn assign(&mut self, lane: Lane) {
        self.inner.assign(lane);
    }

    async fn open_lane(&mut self) -> Result<Checkpoint, StoreError> {
        self.inner.open_lane().await
    }

    async fn commit(&mut self, batch: &mut Batch, span: &BatchSpan) -> Result<CommitOutcome, StoreError> {
        let outcome = self.inner.commit(batch, span).await?;
        if outcome == CommitOutcome::Fenced {
            self.database.note_fenced();
        }
        Ok(outcome)
    }

    async fn retire(&mut self) -> Result<(), StoreError> {
        self.inner.retire().await
    }

    async fn schema(&mut self) -> Result<Schema, StoreError> {
        self.inner.schema().await
    }

    async fn close(&mut self) {
        self.inner.close().await;
    }
}
