//! Retention drops only expired data, in every kind of table.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use odograph::store::{
    DatabaseUrl, ErrorClass, Retention, RetentionClock, RetentionRefusal, RetentionReport, StoreError,
};
use odograph_testkit::{
    IMEI, OTHER, PostgresFixture, Sample, SqliteFixture, StoreFixture, batch, counts, error_class, row,
};

const DAY: Duration = Duration::from_hours(24);
const A_MONTH: Retention = Retention { positions: Some(Duration::from_hours(30 * 24)), quarantine: None };
const QUARANTINE: Retention = Retention { positions: None, quarantine: Some(Duration::from_hours(30 * 24)) };

/// The current time, with nothing waiting in the journal.
async fn retain(url: &DatabaseUrl, retention: &Retention) -> Result<RetentionReport, StoreError> {
    odograph::store::retain(url, retention, &RetentionClock::new(SystemTime::now(), None)).await
}

fn ago(days: u32) -> SystemTime {
    SystemTime::now().checked_sub(days * DAY).unwrap()
}

/// Milliseconds since 1970.
fn days_ago(days: u32) -> i64 {
    let then = ago(days).duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(then.as_millis()).unwrap()
}

/// Two devices, each with old and new positions, and more old ones than one step takes.
fn samples() -> Vec<Sample> {
    let mut samples = vec![row(IMEI, days_ago(31), 1), row(IMEI, days_ago(29), 1), row(OTHER, days_ago(0), 1)];
    samples.extend((0..5_100).map(|n| row(OTHER, days_ago(40) + n, 1)));
    samples
}

#[tokio::test]
async fn whole_chunks_of_a_hypertable_are_dropped() {
    let mut database = PostgresFixture::new().await;
    database.store.commit(&batch(&samples())).await.unwrap();
    let kept = retain(&database.url, &Retention::default()).await.unwrap();
    assert!(kept.is_empty());
    // The chunk of 31 days ago may cross the bound by less than a day.
    let retention = Retention { positions: Some(Duration::from_hours(29 * 24 + 12)), quarantine: None };
    let retained = retain(&database.url, &retention).await.unwrap();
    assert_eq!(retained, RetentionReport { chunks: retained.chunks.clone(), ..RetentionReport::default() });
    let day = |days: u32| humantime::format_rfc3339_seconds(ago(days)).to_string()[..10].to_owned();
    let dropped: Vec<_> = retained.chunks.iter().map(|chunk| humantime::format_rfc3339_seconds(chunk.from)).collect();
    assert_eq!(dropped.iter().map(|from| from.to_string()[..10].to_owned()).collect::<Vec<_>>(), [day(40), day(31)]);
    for chunk in &retained.chunks {
        assert!(chunk.name.contains("_hyper_"), "{chunk:?}");
        assert_eq!(chunk.to.duration_since(chunk.from).unwrap(), DAY);
    }
    assert!(retain(&database.url, &retention).await.unwrap().is_empty());
    assert_eq!(database.count("positions").await, 2);
    assert_eq!(database.count("latest_positions").await, 2, "the last position of a device is kept");
    // A late record creates its chunk again.
    assert_eq!(counts(database.store.commit(&batch([&row(IMEI, days_ago(31), 1)])).await.unwrap()), (1, 0));
}

#[tokio::test]
async fn rows_of_an_ordinary_table_are_deleted_in_steps() {
    let database = PostgresFixture::empty().await;
    let fill = "INSERT INTO positions (imei, ts, fingerprint, valid, received_at) \
         SELECT imei, now() - age, n, true, now() FROM generate_series(1, 5100) AS n, \
         (VALUES (17, interval '31 days'), (17, interval '29 days'), (999999999999999, interval '40 days')) AS v (imei, age) \
         WHERE imei <> 17 OR n = 1";
    for schema in [include_str!("../../db-init/0001_positions.sql"), include_str!("../../db-init/0003_ingest.sql")] {
        database.client.batch_execute(schema).await.unwrap();
    }
    database.client.batch_execute(fill).await.unwrap();
    let retained = retain(&database.url, &A_MONTH).await.unwrap();
    assert_eq!(retained, RetentionReport { positions: 5_101, ..RetentionReport::default() });
    assert_eq!(database.count("positions").await, 1);
}

#[tokio::test]
async fn rows_of_a_file_are_deleted_in_steps_while_it_is_written_to() {
    let mut database = SqliteFixture::new().await;
    database.store.commit(&batch(&samples())).await.unwrap();
    let more = batch([&row(IMEI, days_ago(1), 1)]);
    let (retained, committed) = tokio::join!(retain(&database.url, &A_MONTH), database.store.commit(&more));
    assert_eq!(retained.unwrap(), RetentionReport { positions: 5_101, ..RetentionReport::default() });
    assert_eq!(counts(committed.unwrap()), (1, 0));
    assert_eq!(database.count("positions").await, 3);
}

#[tokio::test]
async fn the_quarantine_is_cleared_by_its_own_age() {
    let database = PostgresFixture::new().await;
    let fill = "INSERT INTO quarantined_records \
                (imei, digest, reason, detail, received_at, journal_id, position, codec, bytes) \
                SELECT 17, decode(lpad(n::text, 4, '0'), 'hex'), 'time', '', now() - n * interval '10 days', \
                '00000000-0000-0000-0000-000000000000', n, 8, '' FROM generate_series(1, 4) AS n";
    database.client.batch_execute(fill).await.unwrap();
    let retained = retain(&database.url, &QUARANTINE).await.unwrap();
    assert_eq!(retained, RetentionReport { quarantined: 2, ..RetentionReport::default() });
    assert_eq!(database.count("quarantined_records").await, 2);

    let embedded = SqliteFixture::new().await;
    let fill = "INSERT INTO quarantined_records \
                (imei, digest, reason, detail, received_at, journal_id, position, codec, bytes) \
                SELECT 17, CAST(value AS BLOB), 'time', '', (unixepoch() - value * 864000) * 1000000, x'00', value, 8, x'' \
                FROM json_each('[1,2,3,4]')";
    sqlx::raw_sql(fill).execute(&mut embedded.connect().await).await.unwrap();
    assert_eq!(
        retain(&embedded.url, &QUARANTINE).await.unwrap(),
        RetentionReport { quarantined: 2, ..RetentionReport::default() }
    );
    assert_eq!(embedded.count("quarantined_records").await, 2);
}

#[tokio::test]
async fn a_role_that_does_not_own_the_table_reads_why() {
    let database = PostgresFixture::new().await;
    let role = format!("role_of_{}", database.name());
    let create = format!("CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON positions TO {role}");
    database.client.batch_execute(&create).await.unwrap();
    let refused = error_class(retain(&database.url_as(&role), &A_MONTH)).await;
    database.client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
    assert_eq!(refused, ErrorClass::Refuses);
}

#[tokio::test]
async fn chunks_stay_while_frames_wait_that_may_belong_to_them() {
    let mut database = PostgresFixture::new().await;
    let times = [50, 40, 33].map(|days| row(IMEI, days_ago(days), 1));
    database.store.commit(&batch(&times)).await.unwrap();
    // The database was down for five days: retention does not count them, and only data older than 35 days is expired.
    let since = ago(5);
    let behind = RetentionClock::new(SystemTime::now(), Some(since));
    let retained = odograph::store::retain(&database.url, &A_MONTH, &behind).await.unwrap();
    assert_eq!((retained.chunks.len(), retained.refused), (2, Some(RetentionRefusal::Waiting { since })));
    assert_eq!(database.count("positions").await, 1);
    // A waiting frame brings a record that was young enough when received. Its chunk is still there, and is
    // dropped only once.
    database.store.commit(&batch([&row(IMEI, days_ago(34), 1)])).await.unwrap();
    let retained = retain(&database.url, &A_MONTH).await.unwrap();
    assert_eq!((retained.chunks.len(), retained.refused), (2, None));
    assert_eq!(database.count("positions").await, 0);
}

#[tokio::test]
async fn rows_stay_while_frames_wait_that_may_belong_to_them() {
    let plain = PostgresFixture::empty().await;
    for schema in [include_str!("../../db-init/0001_positions.sql"), include_str!("../../db-init/0003_ingest.sql")] {
        plain.client.batch_execute(schema).await.unwrap();
    }
    let mut embedded = SqliteFixture::new().await;
    let times = [50, 33, 1].map(|days| row(IMEI, days_ago(days), 1));
    embedded.store.commit(&batch(&times)).await.unwrap();
    let fill = "INSERT INTO positions (imei, ts, fingerprint, valid, received_at) \
                SELECT 17, now() - n * interval '1 day', 1, true, now() FROM unnest(ARRAY[50, 33, 1]) AS n";
    plain.client.batch_execute(fill).await.unwrap();
    let since = ago(5);
    let behind = RetentionClock::new(SystemTime::now(), Some(since));
    let held = RetentionReport {
        positions: 1,
        refused: Some(RetentionRefusal::Waiting { since }),
        ..RetentionReport::default()
    };
    let rest = RetentionReport { positions: 1, ..RetentionReport::default() };
    for url in [&plain.url, &embedded.url] {
        assert_eq!(odograph::store::retain(url, &A_MONTH, &behind).await.unwrap(), held);
        assert_eq!(retain(url, &A_MONTH).await.unwrap(), rest);
        assert!(retain(url, &A_MONTH).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_server_whose_clock_is_a_year_ahead_or_behind_keeps_everything() {
    let mut database = PostgresFixture::new().await;
    database.store.commit(&batch([&row(IMEI, days_ago(40), 1)])).await.unwrap();
    let both = Retention { quarantine: A_MONTH.positions, ..A_MONTH };
    for (now, server_is_ahead) in [(ago(365), true), (SystemTime::now() + 365 * DAY, false)] {
        let retained = odograph::store::retain(&database.url, &both, &RetentionClock::new(now, None)).await.unwrap();
        let Some(RetentionRefusal::Clocks { ahead, by }) = retained.refused else { panic!("{retained:?}") };
        assert!(ahead == server_is_ahead && by > 364 * DAY, "{by:?}");
        assert_eq!(retained, RetentionReport { refused: retained.refused, ..RetentionReport::default() });
    }
    assert_eq!(database.count("positions").await, 1);
}

#[tokio::test]
async fn messages_of_devices_go_with_the_positions() {
    let database = PostgresFixture::new().await;
    let fill = "INSERT INTO device_messages (journal_id, position, imei, received_at, codec, type, bytes) \
                SELECT '00000000-0000-0000-0000-000000000000', n, 17 + n % 2, now() - n * interval '1 minute', 12, 6, '' \
                FROM generate_series(1, 60000) AS n";
    database.client.batch_execute(fill).await.unwrap();
    let retained = retain(&database.url, &A_MONTH).await.unwrap();
    assert_eq!(retained, RetentionReport { messages: retained.messages, ..RetentionReport::default() });
    // A month has 43,200 minutes; a few may pass.
    assert!((16_800..16_810).contains(&retained.messages), "{retained:?}");
    assert!(
        retain(&database.url, &QUARANTINE).await.unwrap().is_empty(),
        "the quarantine's age does not apply to messages"
    );

    let embedded = SqliteFixture::new().await;
    let fill = "INSERT INTO device_messages (journal_id, position, imei, received_at, codec, type, bytes) \
                SELECT x'00', value, 17 + value, (unixepoch() - value * 864000) * 1000000, 12, 6, x'' \
                FROM json_each('[1,2,3,4]')";
    sqlx::raw_sql(fill).execute(&mut embedded.connect().await).await.unwrap();
    // The last one is on the bound or a little past it.
    let retained = retain(&embedded.url, &A_MONTH).await.unwrap();
    assert_eq!(retained, RetentionReport { messages: 2, ..RetentionReport::default() });
    assert_eq!(embedded.count("device_messages").await, 2);
}
