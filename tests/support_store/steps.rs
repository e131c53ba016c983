//! Steps and values that the tests of both stores share.

use std::future::Future;
use std::time::Duration;

use odograph::store::{Batch, Committed, ErrorClass, Store, StoreError};

use super::rows::{Sample, row};

pub(crate) const NOON: i64 = 1_777_723_200_123;
pub(crate) const IMEI: &str = "000000000000017";
pub(crate) const OTHER: &str = "999999999999999";

/// Inserted and duplicates.
pub(crate) fn counts(committed: Committed) -> (u64, u64) {
    (committed.inserted(), committed.duplicates())
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
pub(crate) async fn until_committed(store: &mut impl Store, batch: &Batch) -> (u64, u64) {
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
