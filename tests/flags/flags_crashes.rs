//! A change of a flag takes two transactions, and rows arrive at any moment. Each order is held still at the moment
//! that matters, and processes end between the two transactions.

use odograph::store::{Applied, FlagChange, Ledger as _, PostgresLedger};
use odograph_testkit::{
    IMEI, NOON, OTHER, PostgresFixture, StoreFixture, batch, faulty_times, latest_times, row, set, some_lane, until,
    until_committed, window,
};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::tasks::{Flags, Stream, shared_redis};

/// The number that `src/store/postgres/flag_sql.rs` adds to an IMEI.
const DEVICE_LOCK: i64 = 0x0a5f << 50;

/// Keeps the device's positions from following the ledger until the returned session is dropped.
async fn hold_device(database: &PostgresFixture, imei: i64) -> Client {
    let client = database.connect().await;
    client.execute("SELECT pg_advisory_lock($1)", &[&(DEVICE_LOCK + imei)]).await.unwrap();
    client
}

/// Applies a change in the background.
fn applying(database: &PostgresFixture, change: FlagChange) -> JoinHandle<Vec<Applied>> {
    let mut ledger = database.ledger();
    tokio::spawn(async move { ledger.apply(&[change]).await.unwrap() })
}

/// Writes a change to the ledger and ends before it is applied.
async fn written_down_only(database: &PostgresFixture, change: FlagChange) {
    let imei = database.client.query("SELECT 17::bigint UNION SELECT 999999999999999", &[]).await.unwrap();
    let held = database.connect().await;
    for imei in imei {
        held.execute("SELECT pg_advisory_lock($1)", &[&(DEVICE_LOCK + imei.get::<_, i64>(0))]).await.unwrap();
    }
    let seq = change.seq;
    let applying = applying(database, change);
    until("the change to be written down", async || unapplied(database).await.contains(&seq)).await;
    applying.abort();
    assert!(applying.await.unwrap_err().is_cancelled());
    // Its session ends with it.
    until("the session to end", async || {
        let sessions = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'odograph' \
                        AND wait_event = 'advisory'";
        database.client.query(sessions, &[]).await.unwrap().is_empty()
    })
    .await;
}

async fn unapplied(database: &PostgresFixture) -> Vec<i64> {
    let rows =
        database.client.query("SELECT seq FROM position_flag_ledger WHERE applied_seq < seq", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until this many of the service's sessions wait for a lock.
async fn until_waiting(database: &PostgresFixture, sessions: usize) {
    let waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'odograph' \
                   AND wait_event_type = 'Lock'";
    until("a lock to be waited for", async || database.client.query(waiting, &[]).await.unwrap().len() == sessions)
        .await;
}

async fn arrive(database: &mut PostgresFixture, times: &[i64]) {
    let rows: Vec<_> = times.iter().map(|at| row(IMEI, NOON + at, 1)).collect();
    until_committed(database.store(), &batch(&rows)).await;
}

#[tokio::test]
async fn killed_between_the_two_steps_a_redelivery_finishes() {
    let mut database = PostgresFixture::new().await;
    arrive(&mut database, &[0, 10]).await;
    written_down_only(&database, set(1, 1, window(IMEI, 0, 0))).await;
    assert_eq!(faulty_times(&database).await, []);
    assert_eq!(database.ledger().apply(&[set(1, 1, window(IMEI, 0, 0))]).await.unwrap(), [Applied::Applied]);
    assert_eq!(faulty_times(&database).await, [(17, 0)]);
    assert!(unapplied(&database).await.is_empty());
}

#[tokio::test]
async fn killed_between_the_two_steps_any_process_finishes() {
    let mut database = PostgresFixture::new().await;
    arrive(&mut database, &[0, 10]).await;
    written_down_only(&database, set(1, 1, window(IMEI, 0, 0))).await;
    let mut ledger = database.ledger();
    assert_eq!(ledger.finish(10).await.unwrap(), 1);
    assert_eq!(ledger.finish(10).await.unwrap(), 0);
    assert_eq!(faulty_times(&database).await, [(17, 0)]);
}

#[tokio::test]
async fn every_window_that_a_flag_held_is_left_clean() {
    let mut database = PostgresFixture::new().await;
    arrive(&mut database, &[0, 10, 20, 30]).await;
    database.store().commit(&batch([&row(OTHER, NOON, 1)])).await.unwrap();
    database.ledger().apply(&[set(1, 1, window(IMEI, 0, 0))]).await.unwrap();
    // The flag moves again and again, and each time the process ends before positions follow. Rows arrive in between.
    written_down_only(&database, set(1, 2, window(IMEI, 10, 15))).await;
    arrive(&mut database, &[12]).await;
    written_down_only(&database, set(1, 3, window(OTHER, 0, 5))).await;
    database.store().commit(&batch([&row(OTHER, NOON + 3, 1)])).await.unwrap();
    written_down_only(&database, set(1, 4, window(IMEI, 30, 30))).await;
    assert_eq!(faulty_times(&database).await, [(17, 0), (17, 12), (999_999_999_999_999, 3)], "marked by their batches");
    assert_eq!(database.count("position_flag_windows").await, 3);
    assert_eq!(database.ledger().finish(10).await.unwrap(), 1);
    assert_eq!(faulty_times(&database).await, [(17, 30)]);
    assert_eq!(latest_times(&database).await, [(17, 20), (999_999_999_999_999, 3)]);
    assert_eq!(database.count("position_flag_windows").await, 0);
}

#[tokio::test]
async fn killed_by_the_server_between_the_two_steps_the_consumer_goes_on() {
    let mut database = PostgresFixture::new().await;
    arrive(&mut database, &[0, 10]).await;
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    let flags = Flags::start(&database.url, Some(&redis), &stream, "one");
    let held = hold_device(&database, 17).await;
    stream.add(&set(1, 1, window(IMEI, 0, 0))).await;
    until("the change to be written down", async || unapplied(&database).await == [1]).await;
    assert!(database.terminate().await > 0);
    until("another try", async || flags.metric("flag_retries_total") > 0.0).await;
    assert_eq!(stream.pending().await, 1, "nothing is acknowledged before positions follow");
    drop(held);
    stream.until_done().await;
    assert_eq!(faulty_times(&database).await, [(17, 0)]);
    flags.stop().await;
}

/// The process itself ends there, silently.
#[tokio::test]
async fn stopped_between_the_two_steps_the_next_process_goes_on() {
    let mut database = PostgresFixture::new().await;
    arrive(&mut database, &[0, 10]).await;
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    let flags = Flags::start(&database.url, Some(&redis), &stream, "one");
    let held = hold_device(&database, 17).await;
    stream.add(&set(1, 1, window(IMEI, 0, 0))).await;
    until("the change to be written down", async || unapplied(&database).await == [1]).await;
    flags.stop().await;
    drop(held);
    assert_eq!(faulty_times(&database).await, []);
    let flags = Flags::start(&database.url, Some(&redis), &stream, "one");
    stream.until_done().await;
    assert_eq!(faulty_times(&database).await, [(17, 0)]);
    flags.stop().await;
}

#[tokio::test]
async fn a_flag_waits_for_a_batch_that_did_not_see_it() {
    let mut database = PostgresFixture::new().await;
    arrive(&mut database, &[0]).await;
    // The batch has read the ledger and reaches the latest positions.
    let blocker = database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE latest_positions IN EXCLUSIVE MODE").await.unwrap();
    let mut another = database.another(some_lane()).await;
    let commit = tokio::spawn(async move { another.commit(&batch([&row(IMEI, NOON + 10, 1)])).await.unwrap() });
    until_waiting(&database, 1).await;
    let applying = applying(&database, set(1, 1, window(IMEI, 10, 10)));
    until_waiting(&database, 2).await;
    assert_eq!(database.count("position_flag_ledger").await, 0);
    blocker.batch_execute("COMMIT").await.unwrap();
    commit.await.unwrap();
    assert_eq!(applying.await.unwrap(), [Applied::Applied]);
    assert_eq!(faulty_times(&database).await, [(17, 10)]);
    assert_eq!(latest_times(&database).await, [(17, 0)]);
}

#[tokio::test]
async fn a_batch_sees_a_flag_that_is_written_down_and_not_applied() {
    let mut database = PostgresFixture::new().await;
    arrive(&mut database, &[0, 10]).await;
    let held = hold_device(&database, 17).await;
    let applying = applying(&database, set(1, 1, window(IMEI, 10, 20)));
    until_waiting(&database, 1).await;
    arrive(&mut database, &[15, 25]).await;
    assert_eq!(faulty_times(&database).await, [(17, 15)], "its own row, and no other");
    arrive(&mut database, &[30]).await;
    drop(held);
    applying.await.unwrap();
    assert_eq!(faulty_times(&database).await, [(17, 10), (17, 15)]);
    assert_eq!(latest_times(&database).await, [(17, 30)]);
}

#[tokio::test]
async fn a_batch_that_waits_for_a_change_sees_it() {
    let mut database = PostgresFixture::new().await;
    arrive(&mut database, &[0]).await;
    // Another session changes the ledger at this moment.
    let writer = database.connect().await;
    writer.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(x'6f646f67666c6167'::bigint)").await.unwrap();
    let mut another = database.another(some_lane()).await;
    let commit = tokio::spawn(async move { another.commit(&batch([&row(IMEI, NOON + 10, 1)])).await.unwrap() });
    until_waiting(&database, 1).await;
    writer
        .batch_execute(
            "INSERT INTO position_flag_ledger (flag_id, seq, imei, ts_from, ts_to, faulty) \
             VALUES (gen_random_uuid(), 1, 17, '2026-01-01', '2027-01-01', true); COMMIT",
        )
        .await
        .unwrap();
    commit.await.unwrap();
    assert_eq!(faulty_times(&database).await, [(17, 10)]);
}

/// Two processes with the same changes of the same device.
#[tokio::test]
async fn two_processes_do_not_apply_the_same_twice() {
    let mut database = PostgresFixture::new().await;
    arrive(&mut database, &[0, 10]).await;
    let held = hold_device(&database, 17).await;
    let both = [(); 2].map(|()| applying(&database, set(1, 1, window(IMEI, 0, 10))));
    until_waiting(&database, 2).await;
    drop(held);
    let mut outcomes = Vec::new();
    for one in both {
        outcomes.extend(one.await.unwrap());
    }
    outcomes.sort_by_key(|outcome| *outcome == Applied::Stale);
    assert_eq!(outcomes, [Applied::Applied, Applied::Stale]);
    let mut ledger: PostgresLedger = database.ledger();
    assert_eq!(ledger.corrections(10).await.unwrap().unwrap().len(), 1, "published once");
}
