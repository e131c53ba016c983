//! Catches the moment at which a fault matters: a frozen process cannot move on before the fault happens.

use std::time::{Duration, Instant};

use odograph_testkit::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::load::Load;

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Blocks all writes to `positions` until the returned session ends its transaction.
pub(crate) async fn blocker(url: &str) -> Client {
    let client = connect(url).await;
    client.batch_execute("BEGIN; LOCK TABLE positions IN EXCLUSIVE MODE").await.unwrap();
    client
}

/// Lets a backlog build up, so that the next batches are large.
pub(crate) async fn gather(url: &str, load: &Load, records: u64) {
    let blocker = blocker(url).await;
    load.goes_on(records).await;
    blocker.batch_execute("COMMIT").await.unwrap();
}

/// A backend frozen inside a COPY into `positions`, with some bytes already read. It continues when this is dropped.
pub(crate) struct InCopy {
    backend: Pid,
}

impl InCopy {
    /// Catches such a backend. It builds up backlogs until it succeeds.
    pub(crate) async fn catch(url: &str, load: &Load) -> Self {
        let client = connect(url).await;
        for _ in 0..TRIES {
            gather(url, load, BACKLOG).await;
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(500) {
                let Some(row) = client.query_opt(IN_COPY, &[]).await.unwrap() else { continue };
                let frozen = Self { backend: Pid::from_raw(row.get(0)).unwrap() };
                kill_process(frozen.backend, Signal::STOP).unwrap();
                // A backend frozen while it updates its progress blocks every reader of it: then let it go and try
                // again.
                let still = format!("SELECT FROM ({IN_COPY}) AS copies WHERE pid = {}", frozen.number());
                if let Ok(Ok(Some(_))) = timeout(Duration::from_secs(1), client.query_opt(&still, &[])).await {
                    return frozen;
                }
                break;
            }
        }
        panic!("found no backend inside a COPY in {TRIES} tries");
    }

    pub(crate) fn number(&self) -> i32 {
        self.backend.as_raw_nonzero().get()
    }

    pub(crate) fn kill(&self) {
        kill_process(self.backend, Signal::KILL).unwrap();
    }
}

impl Drop for InCopy {
    fn drop(&mut self) {
        let _ = kill_process(self.backend, Signal::CONT);
    }
}

/// Waits until a query returns a row, and returns the row.
pub(crate) async fn until_row(client: &Client, what: &str, query: &str) -> tokio_postgres::Row {
    let begun = Instant::now();
    loop {
        if let Some(row) = client.query_opt(query, &[]).await.unwrap() {
            return row;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const IN_COPY: &str = "SELECT pid FROM pg_stat_progress_copy WHERE datname = current_database() \
    AND relid = 'positions'::regclass AND bytes_processed > 0 LIMIT 1";
/// Rows of a batch that keeps the server busy for a while.
const BACKLOG: u64 = 4_000;
const TRIES: usize = 40;
