//! The drain with a store that misbehaves, and with a journal that lags: the SQLite is real, the fault is injected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use odograph::health::Health;
use odograph::ingest::drain::{
    BatchBuilder, BatchLimits, DirectSource, DuplicateFilter, FilterSizes, Frame, GapFile, JournalProgress,
    JournalSource, LaneDriver, LaneReports, TimeWindow,
};
use odograph::ingest::drain::{DrainMetrics, JournalMetrics};
use odograph::ingest::intake::{Intake, PendingReceipt};
use odograph::metrics::{Registry, Tally};
use odograph::store::file_of;
use odograph::store::{
    Batch, BatchSpan, Checkpoint, CommitOutcome, DatabaseUrl, ErrorClass, Lane, LaneWriter, Schema, SqliteStore, Store,
    StoreError,
};
use odograph_faulty_disk::FaultyDisk;
use odograph_journal::unix_now_us;
use odograph_journal::{
    EntryKind, Group, Limits, Log, LogOutcome as Written, NewEntry, OpeningDraw, Options, RecoveryMode,
};
use odograph_journal::{JournalId, Position};
use odograph_sim::database::{Fate, SimDatabase};
use odograph_testkit::{TestDatabase, frame, imei, record};
use teltonika_codecs::encode::NewRecord;
use tokio_util::sync::CancellationToken;

const ANY_TIME: TimeWindow = TimeWindow { past: Duration::from_hours(500_000), future: Duration::from_hours(500_000) };
const T: u64 = 1_780_000_000_000;

/// A store that refuses the batches that a predicate selects.
struct SelectiveStore<R> {
    inner: SqliteStore,
    refuses: R,
}

impl<R: FnMut(&Batch) -> bool + Send + Sync> Store for SelectiveStore<R> {
    fn assign(&mut self, lane: Lane) {
        self.inner.assign(lane);
    }

    async fn open_lane(&mut self) -> Result<Checkpoint, StoreError> {
        self.inner.open_lane().await
    }

    async fn commit(&mut self, batch: &mut Batch, span: &BatchSpan) -> Result<CommitOutcome, StoreError> {
        if (self.refuses)(batch) {
            return Err(StoreError::new(ErrorClass::Unavailable, "committing a batch", "out of shared memory"));
        }
        self.inner.commit(batch, span).await
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

struct Bench {
    registry: Registry,
    intake: Intake,
    drain: tokio::task::JoinHandle<bool>,
}

/// Starts a drain into a new file. `refuses` selects the batches that fail.
async fn drain_into<R: FnMut(&Batch) -> bool + Send + Sync + 'static>(database: &TestDatabase, refuses: R) -> Bench {
    let url = DatabaseUrl::parse(&database.url()).unwrap();
    let lane = Lane::only(JournalId::random());
    let inner = SqliteStore::open(file_of(&url).unwrap(), lane).await.unwrap();
    let registry = Registry::new();
    let (intake, mut inboxes) = Intake::commit(1, 1 << 20, registry.tally());
    let batching =
        BatchLimits { rows: 1000, linger: Duration::from_millis(50), window: ANY_TIME, filter: FilterSizes::default() };
    let around = LaneReports {
        metrics: DrainMetrics::new(&registry),
        tally: registry.tally(),
        health: Arc::new(Health::default()),
    };
    let drain = LaneDriver::new(
        SelectiveStore { inner, refuses },
        DirectSource::new(lane, inboxes.remove(0)),
        batching,
        around,
    );
    let drain = tokio::spawn(drain.run(CancellationToken::new(), CancellationToken::new()));
    Bench { registry, intake, drain }
}

impl Bench {
    async fn submit(&self, device: u64, records: &[NewRecord]) -> PendingReceipt {
        let bytes = frame(records);
        let bytes = &bytes[8..bytes.len() - 4];
        let records = u8::try_from(records.len()).unwrap();
        let entry = NewEntry { kind: EntryKind::Frame, imei: imei(device), received_at_us: 0, records, bytes };
        let budget = self.intake.reserve(100).await.unwrap();
        self.intake.submit(&entry, budget).await.unwrap()
    }
}

#[tokio::test]
async fn a_batch_that_the_database_will_not_take_whole_is_committed_in_parts() {
    let database = TestDatabase::sqlite();
    let drain = drain_into(&database, |batch| batch.offered() > 3).await;
    let mut receipts = Vec::new();
    for device in 0..20 {
        let records: Vec<_> = (0..=device % 3).map(|n| record(T + n * 1000, 1)).collect();
        // Twice: a duplicate left out of an abandoned batch must be in the next batch.
        for _ in 0..2 {
            receipts.push((records.len(), drain.submit(device, &records).await));
        }
    }
    drop(drain.intake);
    drain.drain.await.unwrap();
    for (count, receipt) in receipts {
        assert_eq!(usize::from(receipt.await.unwrap().into_ack().1), count);
    }
    let sent: u64 = (0..20).map(|device| 1 + device % 3).sum();
    assert_eq!(database.positions().await, sent);
    let counts = drain.registry.tally().read();
    assert_eq!((counts.committed, counts.duplicate, counts.waiting), (sent, sent, 0));
}

#[tokio::test]
async fn a_frame_that_is_never_taken_does_not_hold_up_the_others() {
    let database = TestDatabase::sqlite();
    let bad = imei(7);
    let drain = drain_into(&database, move |batch| {
        let rows = batch.new.as_slice().iter().chain(batch.perhaps_stored.as_slice());
        rows.into_iter().any(|row| row.imei == bad)
    })
    .await;
    let mut others = Vec::new();
    let never = drain.submit(7, &[record(T, 1)]).await;
    for device in 0..20 {
        if device != 7 {
            others.push(drain.submit(device, &[record(T, 1)]).await);
        }
    }
    for receipt in others {
        assert_eq!(receipt.await.unwrap().into_ack().1, 1);
    }
    // The next frames are committed as usual.
    assert_eq!(drain.submit(1, &[record(T + 1, 1)]).await.await.unwrap().into_ack().1, 1);
    assert_eq!(drain.registry.tally().read().waiting, 1, "unanswered");
    drop(drain.intake);
    drain.drain.await.unwrap();
    assert!(never.await.is_err(), "the tracker keeps it");
    assert_eq!(database.positions().await, 20);
}

#[tokio::test]
async fn what_was_put_aside_is_answered_when_the_database_takes_it_again() {
    let database = TestDatabase::sqlite();
    // The database answers and takes nothing, as with a full disk.
    let (full, alone) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let drain = drain_into(&database, {
        let (full, alone) = (Arc::clone(&full), Arc::clone(&alone));
        move |batch| {
            let refuses = full.load(Ordering::Relaxed);
            alone.fetch_add(u64::from(refuses && batch.offered() == 1), Ordering::Relaxed);
            refuses
        }
    })
    .await;
    let mut receipts = Vec::new();
    for device in 0..5 {
        receipts.push(drain.submit(device, &[record(T, 1)]).await);
    }
    // Each frame is set aside after it was tried alone. Nothing else arrives.
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while alone.load(Ordering::Relaxed) < 5 {
        assert!(tokio::time::Instant::now() < deadline, "each is tried alone");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    full.store(false, Ordering::Relaxed);
    for receipt in receipts {
        let answered = tokio::time::timeout(Duration::from_mins(1), receipt).await;
        assert_eq!(answered.expect("in time").unwrap().into_ack().1, 1);
    }
    assert_eq!(database.positions().await, 5);
    assert_eq!(drain.registry.tally().read().waiting, 0);
}

#[tokio::test]
async fn a_fenced_drain_goes_on_under_another_id_and_leaves_the_owners_checkpoint_alone() {
    let database = TestDatabase::sqlite();
    let drain = drain_into(&database, |_| false).await;
    assert_eq!(drain.submit(1, &[record(T, 1)]).await.await.unwrap().into_ack().1, 1);
    database.execute("UPDATE ingest_checkpoints SET position = position + 1").await;
    let moved = database.rows("SELECT hex(journal_id) AS id, position FROM ingest_checkpoints").await;
    assert_eq!(drain.submit(1, &[record(T + 1, 1)]).await.await.unwrap().into_ack().1, 1);
    assert_eq!(database.positions().await, 2);
    let all = database.rows("SELECT hex(journal_id) AS id, position FROM ingest_checkpoints").await;
    assert!(all.len() == 2 && all.contains(&moved[0]), "{all:?}");
}

#[tokio::test]
async fn a_database_that_went_back_is_written_to_again() {
    let database = TestDatabase::sqlite();
    let drain = drain_into(&database, |_| false).await;
    assert_eq!(drain.submit(1, &[record(T, 1)]).await.await.unwrap().into_ack().1, 1);
    // An older backup has neither the row nor the checkpoint. The acknowledged row is lost, but a resend must not count
    // as stored.
    database.execute("DELETE FROM positions; DELETE FROM ingest_checkpoints").await;
    assert_eq!(drain.submit(1, &[record(T, 1), record(T + 1, 1)]).await.await.unwrap().into_ack().1, 2);
    assert_eq!(database.positions().await, 2);
    drop(drain.intake);
    drain.drain.await.unwrap();
    assert_eq!(database.rows("SELECT lane FROM ingest_checkpoints").await.len(), 0, "a clean end leaves no row");
}

#[test]
fn a_record_without_a_fix_hides_none_behind_it() {
    let mut builder = BatchBuilder::new(ANY_TIME, DuplicateFilter::new(FilterSizes::default()));
    // Newest first: the car is in a garage.
    let garage = NewRecord { satellites: 0, ..record(T + 2000, 1) };
    let bytes = frame(&[garage, record(T + 1000, 1), record(T, 1)]);
    let data = &bytes[8..bytes.len() - 4];
    let position = Position(0);
    let frame =
        Frame { imei: imei(1), received_at_us: (i64::try_from(T).unwrap() + 3000) * 1000, position, data, records: 3 };
    builder.frame(&frame).unwrap();
    builder.add_latest();
    let newest: Vec<_> = builder.batch().latest.as_slice().iter().map(|row| row.ts_ms).collect();
    assert_eq!(newest, [i64::try_from(T).unwrap() + 1000]);
    builder.abandon();
    assert!(!builder.has_latest(), "an abandoned batch leaves no trace");
}

/// One process on a disk: a journal, and the drain of everything in it.
struct DiskIngest {
    log: Log,
    tally: Arc<Tally>,
    drain: LaneDriver<LaneWriter<SimDatabase>, JournalSource>,
}

impl DiskIngest {
    fn start(disk: &FaultyDisk, database: &SimDatabase, tag: u32) -> Self {
        let limits = Limits::with_pieces(80 << 10, 8 << 10, 3 << 10, Duration::from_hours(1)).unwrap();
        let options = Options { limits, recovery: RecoveryMode::Strict };
        let draw = OpeningDraw { id: JournalId::random(), tag, begin: Position(0) };
        let (log, opened) = Log::open(Arc::new(disk.clone()), options, draw, unix_now_us()).unwrap();
        let (registry, health) = (Registry::new(), Arc::new(Health::default()));
        let tally = registry.tally();
        tally.recovered(opened.records);
        let metrics = (Arc::clone(&tally), Arc::clone(&health), JournalMetrics::new(&registry));
        let (catalog, gaps) = (Arc::clone(log.catalog()), GapFile::new(Arc::new(disk.clone())));
        let store = LaneWriter::over(database.clone(), Lane::only(catalog.id()));
        let draining = Arc::new(JournalProgress::new(catalog, 1, gaps, false, opened.new_id, unix_now_us, metrics));
        let batching = BatchLimits {
            rows: 1000,
            linger: Duration::from_millis(1),
            window: ANY_TIME,
            filter: FilterSizes::default(),
        };
        let around = LaneReports { metrics: DrainMetrics::new(&registry), tally: Arc::clone(&tally), health };
        let drain = LaneDriver::new(store, JournalSource::new(draining, 0).unwrap(), batching, around);
        Self { log, tally, drain }
    }

    fn append(&mut self, record: &NewRecord) {
        let frame = frame(std::slice::from_ref(record));
        let (bytes, mut group) = (&frame[8..frame.len() - 4], Group::default());
        group.push(&NewEntry {
            kind: EntryKind::Frame,
            imei: imei(1),
            received_at_us: unix_now_us(),
            records: 1,
            bytes,
        });
        assert!(matches!(self.log.commit(&mut group), Ok(Written::Synced(_))));
        self.tally.recovered(1);
    }
}

/// Runs every statement that the simulated database receives.
fn serve(database: &SimDatabase) -> tokio::task::JoinHandle<()> {
    let database = database.clone();
    tokio::spawn(async move {
        loop {
            database.waiting().iter().for_each(|waiting| database.serve(waiting.statement, Fate::Done));
            database.left().iter().for_each(|left| database.end(left.backend, false));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn what_the_database_has_is_released_at_the_start_though_nothing_more_comes() {
    let (disk, database) = (FaultyDisk::new(1), SimDatabase::new(None));
    let serving = serve(&database);
    let finish = CancellationToken::new();
    finish.cancel();
    let mut first = DiskIngest::start(&disk, &database, 1);
    first.append(&record(T, 1));
    let catalog = Arc::clone(first.log.catalog());
    assert!(first.drain.run(finish.clone(), CancellationToken::new()).await);
    assert_eq!(catalog.status().released, catalog.status().end);
    // Only the next group would have recorded the release, and a full journal takes no group before a release.
    disk.kill();
    let second = DiskIngest::start(&disk, &database, 2);
    let catalog = Arc::clone(second.log.catalog());
    assert_eq!((catalog.status().released, second.tally.read().waiting), (Position(0), 1));
    assert!(second.drain.run(finish, CancellationToken::new()).await);
    assert_eq!(catalog.status().released, catalog.status().end, "everything that the database has is released");
    assert_eq!((second.tally.read().duplicate, second.tally.read().waiting), (1, 0));
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_database_that_went_back_is_filled_again_though_nothing_more_comes() {
    let (disk, database) = (FaultyDisk::new(1), SimDatabase::new(None));
    let (serving, before) = (serve(&database), database.snapshot());
    let mut process = DiskIngest::start(&disk, &database, 1);
    process.append(&record(T, 1));
    let (finish, tally) = (CancellationToken::new(), Arc::clone(&process.tally));
    let drain = tokio::spawn(process.drain.run(finish.clone(), CancellationToken::new()));
    let stored = || database.read(|tables| tables.positions.len());
    let settled = async |committed| {
        for _ in 0..60_000 {
            if stored() == 1 && tally.read().committed == committed && tally.read().waiting == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{} rows, {:?}", stored(), tally.read());
    };
    settled(1).await;
    database.restore(&before);
    assert_eq!(stored(), 0);
    settled(2).await;
    finish.cancel();
    assert!(drain.await.unwrap());
    serving.abort();
}
