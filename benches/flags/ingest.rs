//! An ingest on its own thread: a fleet's records through the store, as fast as possible or at a pace.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use odograph::ingest::drain::{BatchBuilder, DuplicateFilter, FilterSizes};
use odograph::store::server_of;
use odograph::store::{BatchSpan, Checkpoint, CommitOutcome, DatabaseUrl, Lane, PostgresStore, Store as _};
use odograph_journal::{JournalId, Mark, Position};

use crate::load::{ANY_TIME, Load};

pub(crate) struct Ingest(JoinHandle<f64>);

impl Ingest {
    /// Starts an ingest of this many rows. `pace` is rows a second.
    pub(crate) fn start(url: String, rows: u64, pace: Option<f64>) -> Self {
        let load = Load::new(2_000, rows, 0);
        Self(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(commit_all(&url, &load, pace))
        }))
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Rows committed a second, from the first batch to the last.
    pub(crate) fn rows_per_s(self) -> f64 {
        self.0.join().unwrap()
    }
}

async fn commit_all(url: &str, load: &Load, pace: Option<f64>) -> f64 {
    let mut store =
        PostgresStore::new(server_of(&DatabaseUrl::parse(url).unwrap()).unwrap(), Lane::only(JournalId::random()))
            .unwrap();
    let mut from = store.open_lane().await.unwrap().mark;
    let mut builder = BatchBuilder::new(ANY_TIME, DuplicateFilter::new(FilterSizes::default()));
    let (begun, mut newest_written) = (Instant::now(), Instant::now());
    let (mut frames, mut next, mut rows) = (load.frames().peekable(), 0, 0);
    while frames.peek().is_some() {
        // A paced fleet sends the records that are due, and a batch takes what has arrived.
        let due = match pace {
            None => u64::MAX,
            Some(pace) => (begun.elapsed().as_secs_f64() * pace) as u64,
        };
        while builder.batch().offered() < 50_000
            && rows < due
            && let Some(frame) = frames.next()
        {
            builder.frame(&frame.frame(Position(next))).unwrap();
            (next, rows) = (next + 1, rows + 10);
        }
        if builder.batch().offered() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        if newest_written.elapsed() >= Duration::from_secs(1) {
            builder.add_latest();
            newest_written = Instant::now();
        }
        let to = Mark { position: Position(next), tag: 1 };
        let step = BatchSpan { from, to: Checkpoint { mark: to, latest: to.position } };
        let outcome = store.commit(builder.batch(), &step).await.unwrap();
        let CommitOutcome::Committed(done) = outcome else { panic!("{outcome:?}") };
        builder.committed(&done);
        from = to;
    }
    rows as f64 / begun.elapsed().as_secs_f64()
}
