//! Ten thousand flags while two lanes write as fast as they can. One process consumes the flags, others store the rows.

use odograph::store::{FlagChange, Store};
use odograph_testkit::{
    NOON, OneLane, PostgresFixture, RedisServer, Sample, SqliteFixture, StoreFixture, batch, deleted, fleet, set,
    some_lane, until_committed, window,
};

use crate::tasks::{Flags, Stream, fields};

const DEVICES: i64 = 100;
const RECORDS: i64 = 400;
const FLAGS: u128 = 10_000;

async fn write<S: Store>(mut store: OneLane<S>, rows: &[Sample]) {
    for part in rows.chunks(500) {
        until_committed(&mut store, &batch(part)).await;
        tokio::task::yield_now().await;
    }
    store.close().await;
}

/// Flags of every kind over the fleet: single positions, ranges, and far too long ranges. A third is withdrawn again.
fn flags(rng: &mut fastrand::Rng) -> Vec<FlagChange> {
    let mut changes = Vec::new();
    for number in 1..=FLAGS * 3 / 4 {
        let imei = format!("{:015}", 350_000_000_000_000 + rng.i64(0..DEVICES));
        let from = rng.i64(-5..RECORDS) * 1000;
        let length = [0, 0, 0, 7_000, 60_000][rng.usize(..5)];
        changes.push(set(number, 1, window(&imei, from, from + length)));
        if number % 3 == 0 {
            changes.push(deleted(number, 2));
        }
    }
    rng.shuffle(&mut changes);
    assert!(changes.len() >= usize::try_from(FLAGS).unwrap());
    changes
}

async fn ten_thousand_flags_while_rows_arrive(database: impl StoreFixture) {
    let redis = RedisServer::started().await;
    let mut stream = Stream::new(&redis.url());
    let rows = fleet(DEVICES, RECORDS);
    let half = rows.len() / 2;
    let changes = flags(&mut fastrand::Rng::with_seed(11));
    let consumes = Flags::start(&database.url(), Some(&redis.url()), &stream, "one");
    let (one, other) = (database.another(some_lane()).await, database.another(some_lane()).await);
    let marshals = async {
        for change in &changes {
            stream.add_fields(&fields(change)).await;
        }
    };
    tokio::join!(write(one, &rows[..half]), write(other, &rows[half..]), marshals);
    stream.until_done().await;
    assert_eq!(database.count("positions").await, DEVICES * RECORDS);
    assert_eq!(
        database.count("position_flag_ledger WHERE applied_seq = seq").await,
        i64::try_from(FLAGS * 3 / 4).unwrap()
    );
    let misflagged = "positions p WHERE faulty <> EXISTS (SELECT 1 FROM position_flag_ledger f \
         WHERE f.faulty AND NOT f.deleted AND f.imei = p.imei AND f.ts_to >= p.ts AND f.ts_from <= p.ts)";
    assert_eq!(database.count(misflagged).await, 0);
    let faulty = database.count("positions WHERE faulty").await;
    assert!(faulty > 1_000 && faulty < DEVICES * RECORDS, "{faulty}");
    let not_newest = "latest_positions l WHERE faulty OR EXISTS (SELECT 1 FROM positions p \
                      WHERE p.imei = l.imei AND NOT p.faulty AND p.valid AND p.ts > l.ts)";
    assert_eq!(database.count(not_newest).await, 0);
    let devices = database.texts("latest_positions", &["imei"]).await.len();
    assert_eq!(i64::try_from(devices).unwrap(), DEVICES, "from {NOON} on");
    consumes.stop().await;
}

#[tokio::test]
async fn ten_thousand_flags_while_rows_arrive_in_timescale() {
    Box::pin(ten_thousand_flags_while_rows_arrive(PostgresFixture::new().await)).await;
}

#[tokio::test]
async fn ten_thousand_flags_while_rows_arrive_in_sqlite() {
    ten_thousand_flags_while_rows_arrive(SqliteFixture::new().await).await;
}
