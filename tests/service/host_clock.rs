//! A machine that boots with a wrong clock, and is set right while it runs. The database is real; the wall clock is the test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use odograph::health::{Health, Reason};
use odograph::ingest::drain::{
    BatchLimits, DrainMetrics, FilterSizes, GapFile, JournalMetrics, JournalProgress, JournalSource, LaneDriver,
    LaneReports, TimeWindow,
};
use odograph::metrics::{Registry, Tally};
use odograph::store::{DatabaseUrl, Lane, PostgresStore, server_of};
use odograph_faulty_disk::FaultyDisk;
use odograph_journal::{
    EntryKind, Group, JournalId, Limits, Log, LogOutcome, NewEntry, OpeningDraw, Options, Position, RecoveryMode,
    unix_now_us,
};
use odograph_testkit::{TestDatabase, frame, imei, record, until};
use tokio_util::sync::CancellationToken;

const HOUR_US: i64 = 3_600_000_000;

/// How far the wall clock is off.
static OFF_US: AtomicI64 = AtomicI64::new(0);

fn wall() -> i64 {
    unix_now_us() + OFF_US.load(Ordering::Relaxed)
}

fn append(log: &mut Log, tally: &Tally, number: u8) {
    // The tracker has the time of its satellites.
    let device_ms = u64::try_from(unix_now_us() / 1000).unwrap();
    let (frame, mut group) = (frame(&[record(device_ms - u64::from(number), number)]), Group::default());
    let bytes = &frame[8..frame.len() - 4];
    group.push(&NewEntry { kind: EntryKind::Frame, imei: imei(1), received_at_us: wall(), records: 1, bytes });
    assert!(matches!(log.commit(&mut group), Ok(LogOutcome::Synced(_))));
    tally.recovered(1);
}

async fn number(database: &TestDatabase, query: &str) -> i64 {
    database.connect_postgres().await.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_comes_under_a_clock_that_is_hours_behind_is_stored_once_it_is_right() {
    for off_us in [-8 * HOUR_US, 400 * 24 * HOUR_US] {
        OFF_US.store(off_us, Ordering::Relaxed);
        let (disk, database) = (FaultyDisk::new(1), TestDatabase::postgres().await);
        let limits = Limits::with_pieces(800 << 10, 80 << 10, 3 << 10, Duration::from_hours(1)).unwrap();
        let options = Options { limits, recovery: RecoveryMode::Strict };
        let draw = OpeningDraw { id: JournalId::random(), tag: 1, begin: Position(0) };
        let (mut log, opened) = Log::open(Arc::new(disk.clone()), options, draw, wall()).unwrap();
        let (registry, health) = (Registry::new(), Arc::new(Health::default()));
        let (tally, catalog) = (registry.tally(), Arc::clone(log.catalog()));
        let store = PostgresStore::new(
            server_of(&DatabaseUrl::parse(&database.url()).unwrap()).unwrap(),
            Lane::only(catalog.id()),
        )
        .unwrap();
        let metrics = (Arc::clone(&tally), Arc::clone(&health), JournalMetrics::new(&registry));
        let gaps = GapFile::new(Arc::new(disk.clone()));
        let progress = Arc::new(JournalProgress::new(catalog, 1, gaps, false, opened.new_id, wall, metrics));
        let window = TimeWindow { past: Duration::from_hours(24 * 365), future: Duration::from_hours(1) };
        let batching = BatchLimits { rows: 1000, linger: Duration::ZERO, window, filter: FilterSizes::default() };
        let reports = LaneReports {
            metrics: DrainMetrics::new(&registry),
            tally: Arc::clone(&tally),
            health: Arc::clone(&health),
        };
        let driver = LaneDriver::new(store, JournalSource::new(progress, 0).unwrap(), batching, reports);
        let (finish, give_up) = (CancellationToken::new(), CancellationToken::new());
        let drain = tokio::spawn(driver.run(finish.clone(), give_up));

        append(&mut log, &tally, 1);
        until("the clock to be a reason", async || health.holds(Reason::Clock)).await;
        append(&mut log, &tally, 2);
        assert_eq!(database.positions().await, 0, "nothing is judged by a wrong clock");
        OFF_US.store(0, Ordering::Relaxed);
        append(&mut log, &tally, 3);
        until("three positions", async || database.positions().await == 3).await;
        assert!(!health.holds(Reason::Clock));
        assert_eq!(number(&database, "SELECT count(*) FROM quarantined_records").await, 0);
        let wrong = "SELECT count(*) FROM positions WHERE abs(extract(epoch FROM received_at - now())) > 60";
        assert_eq!(number(&database, wrong).await, 0, "the receive times are those of the right clock");

        // It is set wrong while trackers send.
        OFF_US.store(off_us, Ordering::Relaxed);
        append(&mut log, &tally, 4);
        until("the clock to be a reason again", async || health.holds(Reason::Clock)).await;
        OFF_US.store(0, Ordering::Relaxed);
        until("four positions", async || database.positions().await == 4).await;
        assert_eq!(number(&database, "SELECT count(*) FROM quarantined_records").await, 0);
        finish.cancel();
        assert!(drain.await.unwrap());
    }
}
