//! Flags in the running service: a marshal's entry in the stream reaches stored rows and later rows, also after a
//! kill of the service.

use odograph::store::{MigrateOptions, migrate};
use odograph_testkit::{TestDatabase, Tracker, count, eventually, frame, imei, readiness, record};
use redis::aio::MultiplexedConnection;

use crate::ODOGRAPH;

/// 2026-05-02T07:41:00Z.
const T: u64 = 1_777_707_660_000;

async fn redis() -> (String, MultiplexedConnection) {
    let url = std::env::var("REDIS_URL").expect("REDIS_URL is not set: run scripts/test");
    let client = redis::Client::open(url.as_str()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    (url, connection)
}

async fn add(redis: &mut MultiplexedConnection, stream: &str, seq: u32, op: &str, new: &str) {
    let mut command = redis::cmd("XADD");
    command.arg(stream).arg("*").arg("v").arg(1).arg("seq").arg(seq).arg("op").arg(op);
    command.arg("flag_id").arg("6f1c1c0e-4a53-4bb4-9a3e-3f4c9d0f7b11").arg("old").arg("").arg("new").arg(new);
    command.query_async::<String>(redis).await.unwrap();
}

async fn faulty(database: &TestDatabase) -> Vec<u64> {
    let rows = database.all_positions().await;
    let faulty = rows.iter().filter(|row| row["faulty"] == 1);
    faulty.map(|row| (row["ts_ms"].as_u64().unwrap() - T) / 1000).collect()
}

#[tokio::test]
async fn a_flag_in_timescaledb() {
    a_flag_reaches_what_is_there_and_what_comes_later(TestDatabase::postgres().await).await;
}

#[tokio::test]
async fn a_flag_in_sqlite() {
    a_flag_reaches_what_is_there_and_what_comes_later(TestDatabase::sqlite()).await;
}

async fn a_flag_reaches_what_is_there_and_what_comes_later(database: TestDatabase) {
    let url = odograph::store::DatabaseUrl::parse(&database.url()).unwrap();
    migrate(&url, &MigrateOptions::default()).await.unwrap();
    let (redis_url, mut redis) = redis().await;
    let stream = format!("test:flags-service:{}:{}", std::process::id(), database.url());
    let corrected = format!("{stream}:corrected");
    let directory = tempfile::tempdir().unwrap();
    let own = [
        ("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap()),
        ("REDIS_URL", redis_url.as_str()),
        ("ODOGRAPH_FLAGS_STREAM", stream.as_str()),
        ("ODOGRAPH_CORRECTED_STREAM", corrected.as_str()),
    ];
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &own);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T, 1), record(T + 10_000, 1), record(T + 40_000, 1)])).await, 3);
    process.settled().await;

    let window = format!(
        r#"{{"imei":"{}","ts_from":"2026-05-02T07:41:00.000Z","ts_to":"2026-05-02T07:41:30.000Z","faulty":true,"reason":"tunnel"}}"#,
        imei(1)
    );
    add(&mut redis, &stream, 1, "insert", &window).await;
    eventually("the stored rows to be marked", async || (faulty(&database).await == [0, 10]).then_some(())).await;
    assert_eq!(tracker.deliver(&frame(&[record(T + 20_000, 1), record(T + 50_000, 1)])).await, 2);
    process.settled().await;
    assert_eq!(faulty(&database).await, [0, 10, 20], "a later row is marked by its own transaction");
    process.kill();

    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &own);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T + 30_000, 1), record(T + 30_001, 1)])).await, 2);
    process.settled().await;
    assert_eq!(faulty(&database).await, [0, 10, 20, 30], "both bounds are included");
    let newest = async || database.table("latest_positions").await[0]["ts_ms"].as_u64().filter(|ts| *ts == T + 50_000);
    eventually("the latest position", newest).await;

    add(&mut redis, &stream, 2, "delete", "").await;
    eventually("the flag to be withdrawn", async || faulty(&database).await.is_empty().then_some(())).await;
    let published = async || {
        let length: u64 = redis::cmd("XLEN").arg(&corrected).query_async(&mut redis.clone()).await.unwrap();
        (length >= 2).then_some(())
    };
    eventually("the corrections", published).await;
    assert_eq!(readiness(process.admin).await, (200, true, vec![]));
    assert_eq!(count(process.admin, "odograph_redis_up").await, 1);
    assert_eq!(process.terminate(), Some(0));
    redis::cmd("DEL").arg(&stream).arg(&corrected).query_async::<u64>(&mut redis).await.unwrap();
}
