//! A store with one lane that commits batch after batch, and values that tests of both stores share.

use std::future::Future;
use std::time::Duration;

use odograph::store::file_of;
use odograph::store::server_of;
use odograph::store::{
    Batch, BatchSpan, Checkpoint, CommitOutcome, Committed, DatabaseUrl, ErrorClass, Lane, PostgresStore, Schema,
    SqliteStore, Store, StoreError,
};
use odograph_journal::{JournalId, Mark, Position};

use crate::rows::{Sample, row};

/// A time in milliseconds, which is not a whole second.
pub const NOON: i64 = 1_777_723_200_123;
/// A device.
pub const IMEI: &str = "000000000000017";
/// Another device.
pub const OTHER: &str = "999999999999999";

/// A store and the checkpoint of its lane. Every commit moves the checkpoint.
#[derive(Debug)]
pub struct OneLane<S> {
    /// The store.
    pub store: S,
    /// The checkpoint, once the lane is open.
    pub at: Option<Mark>,
}

impl<S: Store> OneLane<S> {
    /// A store whose lane is not open yet.
    pub fn new(store: S) -> Self {
        Self { store, at: None }
    }

    /// Claims the lane and takes over the checkpoint of the database.
    pub async fn open(&mut self) -> Result<Mark, StoreError> {
        let at = self.store.open_lane().await?.mark;
        self.at = Some(at);
        Ok(at)
    }

    /// Commits a batch as the next span. Repeats the same span until it is committed.
    pub async fn offer(&mut self, batch: &Batch) -> Result<CommitOutcome, StoreError> {
        let from = match self.at {
            Some(at) => at,
            None => self.open().await?,
        };
        let to = Mark { position: Position(from.position.0 + 100), tag: 5 };
        let span = BatchSpan { from, to: Checkpoint { mark: to, latest: to.position } };
        let outcome = self.store.commit(&mut batch.clone(), &span).await?;
        if let CommitOutcome::Committed(_) = &outcome {
            self.at = Some(to);
        }
        Ok(outcome)
    }

    /// Commits a batch, and panics if another process has the lane.
    pub async fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        match self.offer(batch).await? {
            CommitOutcome::Committed(committed) => Ok(committed),
            other => panic!("{other:?}"),
        }
    }

    /// The schema that the store sees.
    pub async fn schema(&mut self) -> Result<Schema, StoreError> {
        self.store.schema().await
    }

    /// Closes the store.
    pub async fn close(&mut self) {
        self.store.close().await;
    }
}

/// The only lane of a new journal.
#[must_use]
pub fn some_lane() -> Lane {
    Lane::only(JournalId::random())
}

/// A PostgreSQL store with a new lane.
#[must_use]
pub fn open_postgres(url: &DatabaseUrl) -> OneLane<PostgresStore> {
    OneLane::new(PostgresStore::new(server_of(url).unwrap(), some_lane()).unwrap())
}

/// A SQLite store with a new lane.
pub async fn open_sqlite(url: &DatabaseUrl) -> OneLane<SqliteStore> {
    OneLane::new(SqliteStore::open(file_of(url).unwrap(), some_lane()).await.unwrap())
}

/// Inserted rows and duplicates.
pub fn counts(committed: impl std::borrow::Borrow<Committed>) -> (u64, u64) {
    (committed.borrow().inserted(), committed.borrow().duplicates())
}

/// Rows of devices, interleaved as they arrive. All have a few elements, every fifth has an `io` object.
#[must_use]
pub fn fleet(devices: i64, records: i64) -> Vec<Sample> {
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

/// Commits as the drain does: repeats while the database is unavailable. Returns inserted rows and duplicates.
pub async fn until_committed<S: Store>(store: &mut OneLane<S>, batch: &Batch) -> (u64, u64) {
    for _ in 0..1000 {
        match store.commit(batch).await {
            Ok(done) => return counts(done),
            Err(error) => assert_eq!(error.class, ErrorClass::Unavailable, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the database did not come back");
}

/// The class of an operation's error.
pub async fn error_class<T: std::fmt::Debug>(operation: impl Future<Output = Result<T, StoreError>>) -> ErrorClass {
    operation.await.unwrap_err().class
}
