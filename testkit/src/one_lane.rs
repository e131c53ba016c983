//! Steps and values that the tests of both stores share.

use std::future::Future;
use std::time::Duration;

use odograph::store::{
    Batch, BatchSpan, Checkpoint, CommitOutcome, Committed, DatabaseUrl, ErrorClass, Lane, PostgresStore, Schema,
    SqliteStore, Store, StoreError,
};
use odograph_journal::{JournalId, Mark, Position};

use super::rows::{Sample, row};

pub(crate) const NOON: i64 = 1_777_723_200_123;
pub(crate) const IMEI: &str = "000000000000017";
pub(crate) const OTHER: &str = "999999999999999";

/// A store, and where its lane stands: batch after batch, each a step further.
pub(crate) struct OneLane<S> {
    pub(crate) store: S,
    pub(crate) at: Option<Mark>,
}

impl<S: Store> OneLane<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, at: None }
    }

    /// Claims the lane and stands where the database has it.
    pub(crate) async fn open(&mut self) -> Result<Mark, StoreError> {
        let at = self.store.open_lane().await?.mark;
        self.at = Some(at);
        Ok(at)
    }

    /// Offers a batch as the next step, the same step until it is committed.
    pub(crate) async fn offer(&mut self, batch: &Batch) -> Result<CommitOutcome, StoreError> {
        let from = match self.at {
            Some(at) => at,
            None => self.open().await?,
        };
        let to = Mark { position: Position(from.position.0 + 100), tag: 5 };
        let step = BatchSpan { from, to: Checkpoint { mark: to, latest: to.position } };
        let outcome = self.store.commit(&mut batch.clone(), &step).await?;
        if let CommitOutcome::Committed(_) = &outcome {
            self.at = Some(to);
        }
        Ok(outcome)
    }

    pub(crate) async fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        match self.offer(batch).await? {
            CommitOutcome::Committed(committed) => Ok(committed),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn schema(&mut self) -> Result<Schema, StoreError> {
        self.store.schema().await
    }

    pub(crate) async fn close(&mut self) {
        self.store.close().await;
    }
}

/// A lane of a journal of its own.
pub(crate) fn some_lane() -> Lane {
    Lane::only(JournalId::random())
}

pub(crate) fn timescale(url: &DatabaseUrl) -> OneLane<PostgresStore> {
    OneLane::new(PostgresStore::new(url, some_lane()).unwrap())
}

pub(crate) async fn sqlite(url: &DatabaseUrl) -> OneLane<SqliteStore> {
    OneLane::new(SqliteStore::open(url, some_lane()).await.unwrap())
}

/// Inserted and duplicates.
pub(crate) fn counts(committed: impl std::borrow::Borrow<Committed>) -> (u64, u64) {
    (committed.borrow().inserted(), committed.borrow().duplicates())
}

/// Devices interleaved as they arrive, with a few elements and every fifth with an `io` object.
pub(crate) fn fleet(devices: i64, records: i64) -> Vec<Sample> {
    let record = |at: i64| {
        let mut sample = row(&format!("{:015}", 350_000_000_000_000 + at % devices), NOON + at / devices * 1000, 7);
        for column in [0, 1, 7, 8, 11, 14, 18, 19, 20, 23] {
            sample.row.elements.set(column, i64::from(u8::try_from(at % 2).unwrap()));
        }
        if at % 5 == 0 {
            sample.io = format!("{{\"11\":{at}}}");
        }
        sample
    };
    (0..devices * records).map(record).collect()
}

/// Commits as the drain does it: again and again as long as the database may come back.
pub(crate) async fn until_committed<S: Store>(store: &mut OneLane<S>, batch: &Batch) -> (u64, u64) {
    for _ in 0..1000 {
        match store.commit(batch).await {
            Ok(done) => return counts(done),
            Err(error) => assert_eq!(error.class, ErrorClass::Unavailable, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the database did not come back");
}

pub(crate) async fn class<T: std::fmt::Debug>(operation: impl Future<Output = Result<T, StoreError>>) -> ErrorClass {
    operation.await.unwrap_err().class
}
