//! A disk and a store that are broken on purpose.

use std::any::Any;
use std::io;
use std::sync::Arc;

use odograph::store::{Batch, BatchSpan, Checkpoint, CommitOutcome, Lane, LaneWriter, Schema, Store, StoreError};
use odograph_faulty_disk::FaultyDisk;
use odograph_journal::{Storage, StorageFile};

use crate::database::{Fate, SimDatabase};
use crate::watched_store::WatchedStore;

/// A disk that only claims to have synced.
#[derive(Debug)]
pub struct LyingDisk(pub FaultyDisk);

#[derive(Debug)]
struct LyingFile(Arc<dyn StorageFile>);

impl Storage for LyingDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.0.lock()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(LyingFile(self.0.create(name)?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(LyingFile(self.0.open(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename_new(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }
}

impl StorageFile for LyingFile {
    fn reserve(&self, size: u64) -> io::Result<()> {
        self.0.reserve(size)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A store that gets some proofs of commit from another database.
pub struct EmptyCommit {
    inner: WatchedStore,
    lane: Lane,
}

impl EmptyCommit {
    pub fn new(inner: WatchedStore, lane: Lane) -> Self {
        Self { inner, lane }
    }
}

impl Store for EmptyCommit {
    fn assign(&mut self, lane: Lane) {
        self.lane = lane;
        self.inner.assign(lane);
    }

    async fn open_lane(&mut self) -> Result<Checkpoint, StoreError> {
        self.inner.open_lane().await
    }

    async fn commit(&mut self, batch: &mut Batch, span: &BatchSpan) -> Result<CommitOutcome, StoreError> {
        // Most batches go to the right database.
        if !batch.offered().is_multiple_of(3) || batch.offered() == 0 {
            return self.inner.commit(batch, span).await;
        }
        let elsewhere = SimDatabase::new(None);
        let mut store = LaneWriter::over(elsewhere.clone(), self.lane);
        let claimed = served(&elsewhere, store.open_lane()).await?;
        let there = BatchSpan { from: claimed.mark, to: span.to };
        served(&elsewhere, store.commit(batch, &there)).await
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

/// Runs work against a database without faults.
async fn served<T: Send>(database: &SimDatabase, work: impl Future<Output = T> + Send) -> T {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        for _ in 0..64 {
            if let std::task::Poll::Ready(done) = work.as_mut().poll(context) {
                return std::task::Poll::Ready(done);
            }
            database.waiting().iter().for_each(|waiting| database.serve(waiting.statement, Fate::Done));
        }
        std::task::Poll::Pending
    })
    .await
}
