//! Redis and the database go down and come back: down at the start, killed with or without their data, cut in the middle
//! of an answer. No change is lost, and none becomes a dead letter.

use std::path::Path;

use odograph::flags::{RedisAuthority, RedisUrl};
use odograph::health::{Health, Reason};
use odograph::store::file_of;
use odograph::store::server_of;
use odograph::store::{DatabaseUrl, MigrateOptions, PostgresStore, SqliteStore, Store as _, migrate};
use odograph_testkit::{
    CertificateAndKey, Certificates, Cut, CuttingProxy, IMEI, NOON, OneLane, PrivateServer, RedisServer, SqliteFixture,
    StopMode, StoreFixture, batch, faulty_times, row, set, some_lane, until, until_committed, window,
};

use crate::tasks::{Flags, PACE, Stream};

odograph_testkit::for_both_stores! {
    redis_away_at_the_start
    redis_killed_and_back_with_its_data
    redis_killed_and_back_empty
    a_connection_cut_in_the_middle_of_an_answer
    a_connection_cut_between_commit_and_acknowledgement
    a_connection_cut_between_commit_and_correction
    corrections_keep_their_order_while_redis_is_away
}

fn down(health: &Health) -> bool {
    health.reasons().any(|reason| reason == Reason::RedisDown)
}

async fn arrive(database: &mut impl StoreFixture, times: &[i64]) {
    let rows: Vec<_> = times.iter().map(|at| row(IMEI, NOON + at, 1)).collect();
    until_committed(database.store(), &batch(&rows)).await;
}

async fn until_faulty(database: &impl StoreFixture, times: &[i64]) {
    let expected: Vec<_> = times.iter().map(|at| (17, *at)).collect();
    until(&format!("faulty positions at {times:?}"), async || faulty_times(database).await == expected).await;
}

/// The IDs of the published corrections, each once.
async fn ids(stream: &mut Stream, corrected: &str) -> Vec<i64> {
    let entries = stream.entries(corrected).await;
    let mut ids: Vec<i64> = entries.iter().map(|entry| entry[0].1.parse().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

async fn redis_away_at_the_start(mut database: impl StoreFixture) {
    let mut redis = RedisServer::reserved();
    let mut stream = Stream::new(&redis.url());
    arrive(&mut database, &[0, 10]).await;
    let flags = Flags::start(&database.url(), Some(&redis.url()), &stream, "one");
    until("redis_down", async || down(&flags.health)).await;
    assert!(flags.metric("redis_up") < 0.5);
    redis.start().await;
    until("redis to be up", async || !down(&flags.health)).await;
    stream.add(&set(1, 1, window(IMEI, 10, 10))).await;
    until_faulty(&database, &[10]).await;
    flags.stop().await;
}

async fn redis_killed_and_back_with_its_data(mut database: impl StoreFixture) {
    let mut redis = RedisServer::started().await;
    let mut stream = Stream::new(&redis.url());
    arrive(&mut database, &[0, 10, 20]).await;
    let flags = Flags::start(&database.url(), Some(&redis.url()), &stream, "one");
    stream.add(&set(1, 1, window(IMEI, 0, 0))).await;
    until_faulty(&database, &[0]).await;
    // Written by Directus' hook, and never read before the kill.
    flags.stop().await;
    stream.add(&set(2, 1, window(IMEI, 20, 20))).await;
    let flags = Flags::start(&database.url(), Some("redis://127.0.0.1:1"), &stream, "one");
    redis.kill();
    flags.stop().await;
    let flags = Flags::start(&database.url(), Some(&redis.url()), &stream, "one");
    until("redis_down", async || down(&flags.health)).await;
    redis.start().await;
    stream.reconnect();
    until_faulty(&database, &[0, 20]).await;
    stream.add(&set(3, 1, window(IMEI, 10, 10))).await;
    until_faulty(&database, &[0, 10, 20]).await;
    redis.kill();
    until("redis_down again", async || down(&flags.health)).await;
    redis.start().await;
    stream.reconnect();
    stream.add(&set(1, 2, window(IMEI, 30, 30))).await;
    until_faulty(&database, &[10, 20]).await;
    stream.until_done().await;
    flags.stop().await;
}

async fn redis_killed_and_back_empty(mut database: impl StoreFixture) {
    let mut redis = RedisServer::started().await;
    let mut stream = Stream::new(&redis.url());
    arrive(&mut database, &[0, 10, 20]).await;
    let flags = Flags::start(&database.url(), Some(&redis.url()), &stream, "one");
    stream.add(&set(1, 1, window(IMEI, 0, 0))).await;
    until_faulty(&database, &[0]).await;
    redis.lose_everything();
    until("redis_down", async || down(&flags.health)).await;
    redis.start().await;
    stream.reconnect();
    until("redis to be up", async || !down(&flags.health)).await;
    stream.add(&set(2, 1, window(IMEI, 20, 20))).await;
    until_faulty(&database, &[0, 20]).await;
    // Only the group is lost, while a read waits for entries.
    let name = stream.name.clone();
    stream.ask(redis::cmd("DEL").arg(&name)).await;
    stream.add(&set(1, 2, window(IMEI, 10, 10))).await;
    until_faulty(&database, &[10, 20]).await;
    stream.until_done().await;
    flags.stop().await;
}

async fn a_connection_cut_in_the_middle_of_an_answer(mut database: impl StoreFixture) {
    let redis = RedisServer::started().await;
    let proxy = CuttingProxy::of_redis(&redis.url()).await;
    let mut stream = Stream::new(&redis.url());
    arrive(&mut database, &[0, 10, 20]).await;
    let flags = Flags::start(&database.url(), Some(&proxy.redis_url()), &stream, "one");
    stream.add(&set(1, 1, window(IMEI, 0, 0))).await;
    until_faulty(&database, &[0]).await;
    // The server delivers entries whose second half never arrives: they are pending, and no consumer has them.
    proxy.cut_words(Cut::HalfAnswer, "BLOCK");
    until("the read that will be cut", async || proxy.has_cut()).await;
    stream.add(&set(2, 1, window(IMEI, 20, 20))).await;
    until_faulty(&database, &[0, 20]).await;
    stream.until_done().await;
    flags.stop().await;
}

async fn a_connection_cut_between_commit_and_acknowledgement(mut database: impl StoreFixture) {
    let redis = RedisServer::started().await;
    let proxy = CuttingProxy::of_redis(&redis.url()).await;
    let mut stream = Stream::new(&redis.url());
    arrive(&mut database, &[0, 10, 20]).await;
    let flags = Flags::start(&database.url(), Some(&proxy.redis_url()), &stream, "one");
    proxy.cut_words(Cut::Request, "XACK");
    stream.add(&set(1, 1, window(IMEI, 0, 0))).await;
    until("the cut", async || proxy.has_cut()).await;
    stream.until_done().await;
    until_faulty(&database, &[0]).await;
    flags.until_metric("flag_events_total{result=\"applied\"}", 1.0).await;
    flags.until_metric("flag_events_total{result=\"stale\"}", 1.0).await;
    // The process ends there, and the next one finds the entry.
    proxy.cut_words(Cut::Request, "XACK");
    stream.add(&set(1, 2, window(IMEI, 10, 10))).await;
    until_faulty(&database, &[10]).await;
    flags.stop().await;
    let flags = Flags::start(&database.url(), Some(&proxy.redis_url()), &stream, "one");
    stream.until_done().await;
    assert_eq!(faulty_times(&database).await, [(17, 10)]);
    let corrected = stream.corrected();
    until("three corrections", async || ids(&mut stream, &corrected).await.len() == 3).await;
    flags.stop().await;
}

async fn a_connection_cut_between_commit_and_correction(mut database: impl StoreFixture) {
    let redis = RedisServer::started().await;
    let proxy = CuttingProxy::of_redis(&redis.url()).await;
    let mut stream = Stream::new(&redis.url());
    arrive(&mut database, &[0, 10, 20]).await;
    let flags = Flags::start(&database.url(), Some(&proxy.redis_url()), &stream, "one");
    let corrected = stream.corrected();
    // The correction never arrives.
    proxy.cut_words(Cut::Request, &corrected);
    stream.add(&set(1, 1, window(IMEI, 0, 0))).await;
    until("the cut", async || proxy.has_cut()).await;
    until("the correction", async || stream.entries(&corrected).await.len() == 1).await;
    until("an empty outbox", async || database.count("position_corrections").await == 0).await;
    // The correction arrives, and its answer does not: it is published again under the same ID.
    proxy.cut_words(Cut::HalfAnswer, &corrected);
    stream.add(&set(2, 1, window(IMEI, 20, 20))).await;
    until("an empty outbox", async || proxy.has_cut() && database.count("position_corrections").await == 0).await;
    until("both", async || stream.entries(&corrected).await.len() >= 2).await;
    let ids: Vec<i64> = stream.entries(&corrected).await.iter().map(|entry| entry[0].1.parse().unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let mut distinct = ids.clone();
    distinct.dedup();
    assert_eq!((distinct.len(), ids.len()), (2, 3), "{ids:?}");
    flags.stop().await;
}

async fn corrections_keep_their_order_while_redis_is_away(mut database: impl StoreFixture) {
    let mut redis = RedisServer::reserved();
    arrive(&mut database, &(0..50).collect::<Vec<_>>()).await;
    let mut ledger = database.ledger();
    for number in 0..50 {
        use odograph::store::Ledger as _;
        let change = set(u128::try_from(number).unwrap() + 1, 1, window(IMEI, number, number));
        ledger.apply(&[change]).await.unwrap();
    }
    let mut stream = Stream::new(&redis.url());
    // Two processes, one of which publishes.
    let flags = ["one", "two"].map(|name| Flags::start(&database.url(), Some(&redis.url()), &stream, name));
    redis.start().await;
    let corrected = stream.corrected();
    until("all corrections", async || ids(&mut stream, &corrected).await.len() == 50).await;
    until("an empty outbox", async || database.count("position_corrections").await == 0).await;
    // If a correction was published twice, the first one counts.
    let mut first = Vec::new();
    for entry in stream.entries(&corrected).await {
        let id: i64 = entry[0].1.parse().unwrap();
        if !first.contains(&id) {
            first.push(id);
        }
    }
    assert!(first.is_sorted(), "{first:?}");
    for flags in flags {
        flags.stop().await;
    }
}

#[tokio::test]
async fn flags_wait_while_the_database_is_away() {
    let server = PrivateServer::new("flags");
    let url = DatabaseUrl::parse(&server.url).unwrap();
    migrate(&url, &MigrateOptions::default()).await.unwrap();
    let mut store = OneLane::new(PostgresStore::new(server_of(&url).unwrap(), some_lane()).unwrap());
    let rows: Vec<_> = (0..10).map(|at| row(IMEI, NOON + at, 1)).collect();
    store.commit(&batch(&rows)).await.unwrap();
    let redis = RedisServer::started().await;
    let mut stream = Stream::new(&redis.url());
    let flags = Flags::start(&url, Some(&redis.url()), &stream, "one");
    stream.add(&set(1, 1, window(IMEI, 0, 0))).await;
    stream.until_done().await;

    server.stop(StopMode::Immediate);
    for number in 2..=200 {
        stream.add(&set(number, 1, window(IMEI, 5, 5))).await;
    }
    stream.add_fields(&[("v", "poison".into())]).await;
    until("retries", async || flags.metric("flag_retries_total") > 4.0).await;
    until("what waits to be measured", async || {
        flags.metric("flag_stream_pending") + flags.metric("flag_stream_lag_entries") >= 200.0
    })
    .await;
    assert!(flags.metric("flag_stream_oldest_seconds") > 0.0);
    assert!(stream.pending().await > 0, "nothing is acknowledged");
    assert!(!down(&flags.health));
    server.start();
    stream.until_done().await;
    let rows = server.connect().await.query("SELECT ts FROM positions WHERE faulty", &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    let dead = stream.dead();
    assert_eq!(stream.entries(&dead).await.len(), 1, "an outage makes no dead letter");
    flags.until_metric("flag_events_total{result=\"applied\"}", 200.0).await;
    until_committed(&mut store, &batch([&row(IMEI, NOON + 5, 2)])).await;
    flags.stop().await;
}

#[tokio::test]
async fn a_redis_without_tls_is_not_used_over_rediss() {
    let database = SqliteFixture::new().await;
    let redis = RedisServer::started().await;
    let stream = Stream::new(&redis.url());
    let flags = Flags::start(&database.url, Some(&redis.url().replace("redis:", "rediss:")), &stream, "one");
    until("redis_down", async || down(&flags.health)).await;
    assert!(flags.metric("redis_up") < 0.5);
    flags.stop().await;
}

#[tokio::test]
async fn a_redis_that_refuses_is_not_called_down() {
    let database = SqliteFixture::new().await;
    let redis = RedisServer::started().await;
    let stream = Stream::new(&redis.url());
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = async |arguments: &[&str]| {
        let mut command = redis::cmd(arguments[0]);
        command.arg(&arguments[1..]);
        command.query_async::<()>(&mut connection).await.unwrap();
    };
    command(&["SET", &stream.name, "not a stream"]).await;
    let flags = Flags::start(&database.url, Some(&redis.url()), &stream, "one");
    let refuses = || flags.health.reasons().any(|reason| reason == Reason::RedisRefuses);
    until("redis_refuses", async || refuses()).await;
    assert!(!down(&flags.health));
    command(&["DEL", &stream.name]).await;
    until("flags to be read again", async || flags.metric("redis_up") > 0.5).await;
    assert!(!refuses());
    flags.stop().await;
}

/// Whether the tasks connect to a Redis with this certificate, under this authority.
async fn connects(identity: CertificateAndKey, authority: Option<&Path>) -> bool {
    let database = SqliteFixture::new().await;
    let redis = RedisServer::started_with_tls(identity).await;
    let stream = Stream::new(&redis.url());
    let url = RedisUrl::parse(&redis.url().replace("redis:", "rediss:")).unwrap();
    let url = match authority {
        Some(file) => url.trusting(RedisAuthority::read(file).unwrap()),
        None => url,
    };
    let flags = Flags::start_with(PACE, &database.url, Some(url), &stream, "one");
    until("an answer or a refusal", async || flags.metric("redis_up") > 0.5 || down(&flags.health)).await;
    let up = flags.metric("redis_up") > 0.5;
    flags.stop().await;
    up
}

#[tokio::test]
async fn a_redis_is_trusted_by_its_authority_and_its_name() {
    let made = Certificates::new();
    let (ours, other) = (made.file("ca.pem"), made.file("other.pem"));
    assert!(connects(made.signed(&["127.0.0.1"]), Some(&ours)).await);
    assert!(!connects(made.signed(&["127.0.0.1"]), Some(&other)).await, "another authority");
    assert!(!connects(made.signed(&["127.0.0.1"]), None).await, "the system does not know it");
    assert!(!connects(made.signed(&["redis.example"]), Some(&ours)).await, "another name");
    assert!(!connects(made.expired(&["127.0.0.1"]), Some(&ours)).await, "expired");
    assert!(RedisAuthority::read(&made.file("empty.pem")).is_err());
}

/// The embedded store opened its file before: the order of starts does not matter.
#[tokio::test]
async fn a_file_without_tables_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::sqlite(directory.path().join("positions.db"));
    let redis = RedisServer::started().await;
    let mut stream = Stream::new(&redis.url());
    stream.add(&set(1, 1, window(IMEI, 0, 0))).await;
    let flags = Flags::start(&url, Some(&redis.url()), &stream, "one");
    until("retries", async || flags.metric("flag_retries_total") > 1.0).await;
    let mut store = OneLane::new(SqliteStore::open(file_of(&url).unwrap(), some_lane()).await.unwrap());
    stream.until_done().await;
    store.commit(&batch([&row(IMEI, NOON, 1)])).await.unwrap();
    store.store.close().await;
    flags.stop().await;
}
