//! Only the rows that a database refuses go to quarantine, and all others are committed.

use odograph::store::{Batch, Committed, ErrorClass, Message, QuarantineReason, Quarantined, Reduced, WritePath};
use odograph_journal::Position;
use odograph_testkit::{
    IMEI, NOON, OTHER, PostgresFixture, Sample, SmallDisk, SqliteFixture, StoreFixture, batch, counts, fleet,
    open_sqlite, row, wire,
};
use teltonika_codecs::Imei;

odograph_testkit::for_both_stores! {
    a_refused_row_goes_to_quarantine_alone
    many_refused_rows_among_many_are_all_found
    a_batch_of_refused_rows_is_quarantined_whole
    a_refused_row_is_never_the_latest_position
    what_the_drain_quarantines_is_kept_once_and_counted
    messages_are_kept_with_any_bytes
}

const JOURNAL: uuid::Uuid = uuid::Uuid::from_u128(7);
const COLUMNS: [&str; 6] = ["imei", "reason", "position", "record_index", "codec", "seen"];

fn fast(sample: &mut Sample) {
    sample.row.speed_kmh = 300;
}

/// Returns how many rows were inserted, duplicates and refused.
fn all_counts(committed: &Committed) -> (u64, u64, usize) {
    (committed.inserted(), committed.duplicates(), committed.refused().len())
}

async fn a_refused_row_goes_to_quarantine_alone(mut database: impl StoreFixture) {
    database.refuse_speed().await;
    let mut samples = fleet(20, 5);
    fast(&mut samples[42]);
    let refused = batch(&samples);
    let committed = database.store().commit(&refused).await.unwrap();
    assert_eq!(all_counts(&committed), (99, 0, 1));
    assert_eq!(committed.refused(), [samples[42].row.key()]);
    assert_eq!(database.count("positions").await, 99);
    let imei = samples[42].row.imei.get().to_string();
    assert_eq!(database.texts("quarantined_records", &COLUMNS).await, [[&imei, "refused", "7", "3", "142", "1"]]);
    let detail = &database.texts("quarantined_records", &["detail"]).await[0][0];
    assert!(detail.contains("no_rocket"), "{detail}");
    let hex: String = wire(&samples[42]).iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = &database.texts("quarantined_records", &[database.hex_of_bytes()]).await[0][0];
    assert_eq!(bytes.to_lowercase(), hex);

    // It comes again with the others: nothing is new, but it is counted.
    let again = database.store().commit(&refused).await.unwrap();
    assert_eq!(all_counts(&again), (0, 99, 1));
    assert_eq!(database.texts("quarantined_records", &["seen"]).await, [["2"]]);
    // The repaired table takes later rows the fast way again.
    let next = database.store().commit(&batch([&row(IMEI, NOON, 1)])).await.unwrap();
    assert_eq!(all_counts(&next), (1, 0, 0));
}

async fn many_refused_rows_among_many_are_all_found(mut database: impl StoreFixture) {
    database.refuse_speed().await;
    let mut samples = fleet(100, 20);
    samples.iter_mut().skip(3).step_by(17).for_each(fast);
    let refused = samples.iter().filter(|sample| sample.row.speed_kmh > 250).count();
    let committed = database.store().commit(&batch(&samples)).await.unwrap();
    assert_eq!(all_counts(&committed), (2000 - refused as u64, 0, refused));
    assert_eq!(database.count("quarantined_records").await, i64::try_from(refused).unwrap());
    assert_eq!(database.count("positions").await, i64::try_from(2000 - refused).unwrap());
}

async fn a_batch_of_refused_rows_is_quarantined_whole(mut database: impl StoreFixture) {
    database.refuse_speed().await;
    let mut samples = fleet(10, 5);
    samples.iter_mut().for_each(fast);
    assert_eq!(all_counts(&database.store().commit(&batch(&samples)).await.unwrap()), (0, 0, 50));
    assert_eq!((database.count("positions").await, database.count("quarantined_records").await), (0, 50));
}

async fn a_refused_row_is_never_the_latest_position(mut database: impl StoreFixture) {
    database.refuse_speed().await;
    let mut samples = [row(IMEI, NOON, 1), row(OTHER, NOON, 1)];
    fast(&mut samples[0]);
    assert_eq!(all_counts(&database.store().commit(&batch(&samples)).await.unwrap()), (1, 0, 1));
    assert_eq!(database.rows("latest_positions").await, [samples[1].cells()]);
}

async fn what_the_drain_quarantines_is_kept_once_and_counted(mut database: impl StoreFixture) {
    let record = |reason, frame, index, bytes: &[u8]| Quarantined {
        imei: Imei::from_ascii(IMEI.as_bytes()).unwrap(),
        reason,
        detail: "a detail".to_owned(),
        received_at_us: NOON * 1000,
        frame: Position(frame),
        record_index: index,
        codec: 8,
        bytes: bytes.to_vec(),
    };
    let mut batch = Batch::default();
    batch.quarantined.push(record(QuarantineReason::TimeWindow, 1, Some(0), b"one"));
    batch.quarantined.push(record(QuarantineReason::Undecodable, 2, None, b"\0\xFFtwo"));
    batch.quarantined.push(record(QuarantineReason::TimeWindow, 3, Some(4), b"one"));
    assert_eq!(counts(database.store().commit(&batch).await.unwrap()), (0, 0));
    let expected = [["17", "time_window", "1", "0", "8", "2"], ["17", "undecodable", "2", "", "8", "1"]];
    assert_eq!(database.texts("quarantined_records", &COLUMNS).await, expected);
    database.store().commit(&batch).await.unwrap();
    assert_eq!(database.texts("quarantined_records", &["seen"]).await, [["2"], ["4"]]);
}

async fn messages_are_kept_with_any_bytes(mut database: impl StoreFixture) {
    let message = |frame, bytes: &[u8], text: Option<&str>| Message {
        source: JOURNAL,
        device_time_ms: Some(1_777_723_200_000),
        device_imei: Some("000000000000018".parse().unwrap()),
        imei: Imei::from_ascii(IMEI.as_bytes()).unwrap(),
        received_at_us: NOON * 1000,
        frame: Position(frame),
        codec: 12,
        message_type: 6,
        bytes: bytes.to_vec(),
        text: text.map(str::to_owned),
    };
    let mut batch = batch([&row(IMEI, NOON, 1)]);
    batch.messages.push(message(8, b"DI1:1", Some("DI1:1")));
    batch.messages.push(message(9, b"\0\xFF", None));
    assert_eq!(counts(database.store().commit(&batch).await.unwrap()), (1, 0));
    let expected = [["8", "17", "12", "6", "DI1:1"], ["9", "17", "12", "6", ""]];
    let columns = ["position", "imei", "codec", "type", "text"];
    assert_eq!(database.texts("device_messages", &columns).await, expected);
    assert_eq!(database.store().commit(&batch).await.unwrap().path(), WritePath::Conflict);
    assert_eq!(database.count("device_messages").await, 2, "the same frame again is the same message");
    let named = "SELECT count(*) AS n FROM device_messages WHERE device_imei = 18 AND device_time IS NOT NULL";
    assert_eq!(
        database.texts(&format!("({named}) AS named"), &["n"]).await,
        [["2"]],
        "what the message says of itself"
    );
}

#[tokio::test]
async fn a_column_of_another_type_is_the_operators_matter() {
    let mut database = PostgresFixture::new().await;
    // A column that an operator made smaller.
    database.execute("DROP VIEW IF EXISTS positions_by_device, positions_named CASCADE").await;
    database.execute("ALTER TABLE positions ALTER COLUMN angle_deg TYPE smallint").await;
    // Binary COPY fails on the width in every row, so no single row causes it.
    assert_eq!(database.store.commit(&batch(&fleet(5, 4))).await.unwrap_err().class, ErrorClass::Refuses);
    assert_eq!(database.count("quarantined_records").await, 0);
    assert_eq!(database.count("positions").await, 0);
}

#[tokio::test]
async fn an_index_that_somebody_added_refuses_loudly_and_loses_nothing() {
    let mut database = PostgresFixture::new().await;
    database.execute("CREATE UNIQUE INDEX one_a_millisecond ON positions (imei, ts)").await;
    let samples = [row(IMEI, NOON, 1), row(IMEI, NOON, 2), row(OTHER, NOON, 3)];
    let committed = database.store().commit(&batch(&samples)).await.unwrap();
    assert_eq!(all_counts(&committed), (2, 0, 1));
    let detail = &database.texts("quarantined_records", &["detail"]).await[0][0];
    assert!(detail.starts_with("23505") && detail.ends_with("one_a_millisecond"), "{detail}");
}

#[tokio::test]
async fn latest_positions_that_are_refused_delay_nothing() {
    let mut database = PostgresFixture::new().await;
    database.execute("ALTER TABLE latest_positions ADD CONSTRAINT few CHECK (satellites < 10)").await;
    let mut samples = fleet(10, 3);
    samples[3].row.satellites = 5;
    samples[13].row.satellites = 5;
    samples[23].row.satellites = 5;
    assert_eq!(all_counts(&database.store().commit(&batch(&samples)).await.unwrap()), (30, 0, 0));
    assert_eq!(database.count("positions").await, 30);
    assert_eq!(database.count("latest_positions").await, 1);
}

#[tokio::test]
async fn a_full_disk_passes_and_quarantines_nothing() {
    let mut database = PostgresFixture::new().await;
    // The server's own error code, raised where the server would raise it.
    database
        .execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER full_disk AFTER INSERT ON positions FOR EACH ROW EXECUTE FUNCTION full_disk()",
        )
        .await;
    let batch = batch(&fleet(5, 4));
    let error = database.store.commit(&batch).await.unwrap_err();
    assert_eq!((error.class, error.in_doubt()), (ErrorClass::Unavailable, false));
    assert_eq!(database.count("quarantined_records").await, 0);
    database.execute("DROP TRIGGER full_disk ON positions").await;
    assert_eq!(counts(database.store.commit(&batch).await.unwrap()), (20, 0));
}

#[tokio::test]
async fn a_full_sqlite_file_passes_and_loses_nothing() {
    let batch = batch(&fleet(500, 20));
    let Some(small) = SmallDisk::new(1 << 20) else { return };
    let url = odograph::store::DatabaseUrl::sqlite(small.path().join("positions.db"));
    let mut store = open_sqlite(&url).await;
    let error = store.commit(&batch).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable, "{error:?}");
    small.grow(64 << 20);
    assert_eq!(counts(store.commit(&batch).await.unwrap()), (10_000, 0));
}

#[tokio::test]
async fn a_trigger_that_could_drop_rows_unseen_stops_the_store() {
    let mut database = PostgresFixture::new().await;
    let batch = batch(&fleet(5, 4));
    database
        .execute(
            "CREATE FUNCTION drop_some() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.imei % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER drop_some BEFORE INSERT ON positions FOR EACH ROW EXECUTE FUNCTION drop_some()",
        )
        .await;
    let error = database.store.commit(&batch).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Refuses);
    assert!(error.source.to_string().contains("trigger"), "{error:?}");
    assert_eq!(database.count("positions").await, 0);
    database.execute("DROP TRIGGER drop_some ON positions").await;
    assert_eq!(counts(database.store.commit(&batch).await.unwrap()), (20, 0));
}

#[tokio::test]
async fn tables_that_could_lose_or_double_rows_stop_the_store() {
    let mut database = PostgresFixture::new().await;
    let batch = batch(&fleet(5, 4));
    database
        .execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        )
        .await;
    let key = "ALTER TABLE positions ADD CONSTRAINT positions_pkey PRIMARY KEY (imei, ts, fingerprint)";
    for (broken, repaired, words) in [
        ("ALTER TABLE positions DROP CONSTRAINT positions_pkey CASCADE", key, "no primary key"),
        (
            "CREATE TRIGGER keep BEFORE UPDATE ON positions FOR EACH ROW EXECUTE FUNCTION keep()",
            "DROP TRIGGER keep ON positions",
            "trigger",
        ),
        (
            "CREATE TRIGGER keep BEFORE INSERT ON latest_positions FOR EACH ROW EXECUTE FUNCTION keep()",
            "DROP TRIGGER keep ON latest_positions",
            "trigger",
        ),
        (
            "ALTER TABLE quarantined_records SET UNLOGGED",
            "ALTER TABLE quarantined_records SET LOGGED",
            "not a permanent table",
        ),
    ] {
        database.execute(broken).await;
        let error = database.store.commit(&batch).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Refuses, "{broken}");
        assert!(error.source.to_string().contains(words), "{broken}: {error:?}");
        assert_eq!(database.count("positions").await, 0);
        database.execute(repaired).await;
    }
    // A trigger after the row cannot take it away.
    database
        .execute("CREATE TRIGGER watch AFTER INSERT ON latest_positions FOR EACH ROW EXECUTE FUNCTION watch()")
        .await;
    assert_eq!(counts(database.store.commit(&batch).await.unwrap()), (20, 0));
}

#[tokio::test]
async fn sqlite_triggers_that_could_lose_rows_stop_the_store() {
    let mut database = SqliteFixture::new().await;
    let batch = batch(&fleet(5, 4));
    for action in ["IGNORE", "ROLLBACK, 'away with it'"] {
        let trigger = format!(
            "CREATE TRIGGER lose BEFORE INSERT ON positions WHEN NEW.imei % 2 = 0 BEGIN SELECT RAISE({action}); END"
        );
        database.execute(&trigger).await;
        let error = database.store().commit(&batch).await.unwrap_err();
        assert_eq!((error.class, error.in_doubt()), (ErrorClass::Refuses, false), "{action}: {error:?}");
        database.execute("DROP TRIGGER lose").await;
    }
    // After a rollback some rows were inserted one by one without a report.
    let (inserted, duplicates) = counts(database.store().commit(&batch).await.unwrap());
    assert_eq!((inserted + duplicates, database.count("positions").await), (20, 20));
}

#[tokio::test]
async fn a_column_that_no_row_can_fill_is_the_operators_matter() {
    let mut database = PostgresFixture::new().await;
    database.execute("ALTER TABLE positions ADD COLUMN note text NOT NULL").await;
    assert_eq!(database.store.commit(&batch(&fleet(5, 4))).await.unwrap_err().class, ErrorClass::Refuses);
    assert_eq!(database.count("quarantined_records").await, 0);
}

/// A table refuses texts with "no", payloads that begin with 0xDE, and everything of type 99. Each statement is for one
/// backend.
const REFUSING: [[&str; 2]; 2] = [
    [
        "ALTER TABLE device_messages ADD CONSTRAINT own CHECK \
         (position(E'no' IN coalesce(text, '')) = 0 AND substring(bytes FOR 1) <> '\\xde' AND type <> 99)",
        "ALTER TABLE quarantined_records ADD CONSTRAINT own CHECK \
         (position('no' IN detail) = 0 AND substring(bytes FOR 1) <> '\\xde' AND codec <> 99)",
    ],
    [
        "CREATE TRIGGER own_messages BEFORE INSERT ON device_messages \
         WHEN NEW.text LIKE '%no%' OR hex(substr(NEW.bytes, 1, 1)) = 'DE' OR NEW.type = 99 \
         BEGIN SELECT RAISE(ABORT, 'own'); END",
        "CREATE TRIGGER own_records BEFORE INSERT ON quarantined_records \
         WHEN NEW.detail LIKE '%no%' OR hex(substr(NEW.bytes, 1, 1)) = 'DE' OR NEW.codec = 99 \
         BEGIN SELECT RAISE(ABORT, 'own'); END",
    ],
];

#[tokio::test]
async fn one_refused_message_holds_up_nothing_in_timescale() {
    one_refused_message_holds_up_nothing(PostgresFixture::new().await, REFUSING[0]).await;
}

#[tokio::test]
async fn one_refused_message_holds_up_nothing_in_sqlite() {
    one_refused_message_holds_up_nothing(SqliteFixture::new().await, REFUSING[1]).await;
}

async fn one_refused_message_holds_up_nothing(mut database: impl StoreFixture, refusing: [&str; 2]) {
    for statement in refusing {
        database.execute(statement).await;
    }
    let imei = Imei::from_ascii(IMEI.as_bytes()).unwrap();
    let message = |frame, message_type, bytes: &[u8], text: &str| Message {
        source: JOURNAL,
        device_time_ms: Some(1_777_723_200_000),
        device_imei: Some("000000000000018".parse().unwrap()),
        imei,
        received_at_us: NOON * 1000,
        frame: Position(frame),
        codec: 12,
        message_type,
        bytes: bytes.to_vec(),
        text: Some(text.to_owned()),
    };
    let record = |frame, codec, bytes: &[u8], detail: &str| Quarantined {
        imei,
        reason: QuarantineReason::Undecodable,
        detail: detail.to_owned(),
        received_at_us: NOON * 1000,
        frame: Position(frame),
        record_index: None,
        codec,
        bytes: bytes.to_vec(),
    };
    let refused = Batch {
        messages: vec![
            message(1, 6, &[1], "yes"),
            message(2, 6, &[2], "no"),
            message(3, 6, &[0xDE, 3], "no"),
            message(4, 99, &[4], "yes"),
            message(5, 6, &[5], "yes"),
        ],
        quarantined: vec![
            record(6, 8, &[6], "yes"),
            record(7, 8, &[7], "no"),
            record(8, 8, &[0xDE, 8], "no"),
            record(9, 99, &[9], "yes"),
        ],
        ..batch(&[row(IMEI, NOON, 1)])
    };
    let committed = database.store().commit(&refused).await.unwrap();
    assert_eq!(all_counts(&committed), (1, 0, 0));
    assert_eq!(committed.reduced(), Reduced { partly: 4, left_out: 2 });
    let bytes = database.hex_of_bytes();
    let messages = database.texts("device_messages", &["position", bytes, "coalesce(text, '-')"]).await;
    let messages: Vec<_> = messages.iter().map(|row| row.join(" ").to_lowercase()).collect();
    assert_eq!(messages, ["1 01 yes", "2 02 -", "3  -", "5 05 yes"]);
    let records = database.texts("quarantined_records", &["position", bytes, "detail"]).await;
    let records: Vec<_> = records.iter().map(|row| row.join(" ").to_lowercase()).collect();
    assert_eq!(records, ["6 06 yes", "7 07 ", "8  "]);
    // The lane goes on the fast way.
    let next = database.store().commit(&batch(&[row(IMEI, NOON + 1, 1)])).await.unwrap();
    assert_eq!(all_counts(&next), (1, 0, 0));
}
