//! The drain in front of a store that misbehaves: real SQLite behind it, only the refusal is made.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odograph::checkpoint::JournalId;
use odograph::drain::{Batching, Drain, TimeWindow};
use odograph::health::Health;
use odograph::metrics::{DrainMetrics, Registry};
use odograph::receipt::commit_gate;
use odograph::store::{
    Batch, Checkpoint, DatabaseUrl, ErrorClass, Lane, Outcome, Schema, SqliteStore, Step, Store, StoreError,
};
use support::database::Database;
use support::tracker::{frame, imei, record};
use tokio_util::sync::CancellationToken;

const ANY_TIME: TimeWindow = TimeWindow { past: Duration::from_hours(500_000), future: Duration::from_hours(500_000) };
const T: u64 = 1_780_000_000_000;

/// Takes batches of so many rows and no more, as a server does that runs out of locks in one transaction.
struct Choosy {
    inner: SqliteStore,
    most_rows: u64,
}

impl Store for Choosy {
    async fn open_lane(&mut self) -> Result<Checkpoint, StoreError> {
        self.inner.open_lane().await
    }

    async fn commit(&mut self, batch: &mut Batch, step: &Step) -> Result<Outcome, StoreError> {
        if batch.offered() > self.most_rows {
            return Err(StoreError::new(ErrorClass::Unavailable, "committing a batch", "out of shared memory"));
        }
        self.inner.commit(batch, step).await
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

#[tokio::test]
async fn a_batch_that_the_database_will_not_take_whole_is_committed_in_parts() {
    let database = Database::sqlite();
    let inner = SqliteStore::open(&DatabaseUrl::parse(&database.url()).unwrap(), Lane::only(JournalId::random()))
        .await
        .unwrap();
    let registry = Registry::new();
    let (gate, inbox) = commit_gate(1 << 20, registry.tally());
    let batching = Batching { rows: 1000, linger: Duration::from_millis(50), window: ANY_TIME };
    let metrics = DrainMetrics::new(&registry);
    let store = Choosy { inner, most_rows: 3 };
    let drain = Drain::new(store, inbox, batching, metrics, registry.tally(), Arc::new(Health::default()));

    let mut receipts = Vec::new();
    for device in 0..20 {
        let records: Vec<_> = (0..=device % 3).map(|n| record(T + n * 1000, 1)).collect();
        let bytes = frame(&records);
        let data = Bytes::copy_from_slice(&bytes[8..bytes.len() - 4]);
        let budget = gate.reserve(100).await.unwrap();
        let count = u8::try_from(records.len()).unwrap();
        receipts.push((count, gate.submit(imei(device), 0, data, count, budget).await.unwrap()));
    }
    drop(gate);
    drain.run(CancellationToken::new()).await;
    for (count, receipt) in receipts {
        assert_eq!(receipt.await.unwrap().into_ack().1, count);
    }
    assert_eq!(database.positions().await, (0..20).map(|device| 1 + device % 3).sum::<u64>());
    assert_eq!(registry.tally().read().waiting, 0);
}
