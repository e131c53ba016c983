//! A flag that the database refuses holds up no other flag, and an operator sees it.

use std::time::Duration;

use odograph::flags::Pace;
use odograph::health::Reason;
use odograph_testkit::{
    IMEI, NOON, OTHER, PostgresFixture, StoreFixture, batch, faulty_times, row, set, until, window,
};

use crate::flags_directus::{CAR, FLAG, TRUCK, insert_text, installed};
use crate::tasks::{Flags, PACE, Stream, shared_redis};

/// Reconciles all the time.
const BUSY: Pace = Pace { reconcile_every: Duration::from_millis(100), ..PACE };
/// Positions that were stored before a check that they do not pass: a change of theirs is refused.
const OLD_JUNK: &str = "ALTER TABLE positions ADD CONSTRAINT junk CHECK (imei <> 999999999999999) NOT VALID";

async fn with_positions(mut database: PostgresFixture) -> PostgresFixture {
    let rows = [row(IMEI, NOON, 1), row(IMEI, NOON + 10, 1), row(OTHER, NOON, 1)];
    database.store().commit(&batch(&rows)).await.unwrap();
    database
}

async fn until_stuck(flags: &Flags, changes: f64) {
    flags.until_metric("flags_stuck", changes).await;
    until("readiness", async || flags.health.holds(Reason::FlagsStuck) == (changes > 0.0)).await;
}

#[tokio::test]
async fn a_flag_over_positions_that_cannot_change_holds_up_no_other() {
    let database = with_positions(PostgresFixture::new().await).await;
    database.execute(OLD_JUNK).await;
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    stream.add(&set(1, 1, window(OTHER, 0, 5))).await;
    stream.add(&set(2, 1, window(IMEI, 10, 10))).await;
    let flags = Flags::start_at(BUSY, &database.url(), Some(&redis), &stream, "one");
    until("the other flag", async || faulty_times(&database).await == [(17, 10)]).await;
    until_stuck(&flags, 1.0).await;
    stream.until_done().await;
    flags.until_metric("flag_events_total{result=\"set_aside\"}", 1.0).await;
    stream.add(&set(3, 1, window(IMEI, 0, 0))).await;
    until("a later flag", async || faulty_times(&database).await == [(17, 0), (17, 10)]).await;
    assert!(flags.health.holds(Reason::FlagsStuck), "the readiness does not flap");

    database.execute("ALTER TABLE positions DROP CONSTRAINT junk").await;
    until("the flag that was stuck", async || faulty_times(&database).await.len() == 3).await;
    until_stuck(&flags, 0.0).await;
    flags.stop().await;
}

#[tokio::test]
async fn a_flag_that_the_ledger_refuses_becomes_a_dead_letter() {
    let database = with_positions(PostgresFixture::new().await).await;
    database.execute("ALTER TABLE position_flag_ledger ADD CONSTRAINT own CHECK (ts_to <> ts_from)").await;
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    stream.add(&set(1, 1, window(IMEI, 0, 5))).await;
    let refused = stream.add(&set(2, 1, window(OTHER, 0, 0))).await;
    stream.add(&set(3, 1, window(IMEI, 10, 15))).await;
    let flags = Flags::start(&database.url(), Some(&redis), &stream, "one");
    until("the others", async || faulty_times(&database).await == [(17, 0), (17, 10)]).await;
    stream.until_done().await;
    let dead = stream.dead();
    let letters = stream.entries(&dead).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0][..2], [("reason".into(), "refused".into()), ("id".into(), refused)]);
    flags.until_metric("flag_faults_total{reason=\"refused\"}", 1.0).await;
    flags.stop().await;
}

#[tokio::test]
async fn reconciliation_goes_on_past_a_refused_flag() {
    let database = with_positions(installed().await).await;
    database.execute(OLD_JUNK).await;
    let stream = Stream::new("redis://127.0.0.1:1");
    let flags = Flags::start_at(BUSY, &database.url, None, &stream, "one");
    database.execute(&insert_text(FLAG, TRUCK, 0, 5)).await;
    database.execute(&insert_text(CAR, CAR, 0, 5)).await;
    until("the other flag", async || faulty_times(&database).await == [(17, 0)]).await;
    until_stuck(&flags, 1.0).await;
    // A withdrawn flag is stuck no more.
    database.execute(&format!("DELETE FROM position_flags WHERE id = '{FLAG}'")).await;
    until_stuck(&flags, 0.0).await;
    flags.stop().await;
}

#[tokio::test]
async fn a_database_that_refuses_every_flag_is_seen_in_readiness() {
    let database = with_positions(installed().await).await;
    database.execute("ALTER TABLE position_flag_windows RENAME TO elsewhere").await;
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    let flags = Flags::start_at(BUSY, &database.url, Some(&redis), &stream, "one");
    stream.add(&set(1, 1, window(IMEI, 0, 5))).await;
    until("readiness", async || flags.health.holds(Reason::FlagsStuck)).await;
    database.execute("ALTER TABLE elsewhere RENAME TO position_flag_windows").await;
    until("the flag", async || faulty_times(&database).await == [(17, 0)]).await;
    until("readiness", async || !flags.health.holds(Reason::FlagsStuck)).await;
    flags.stop().await;
}
