//! The SQL triggers on Directus' collections, on tables like those that Directus creates, and reconciliation from the
//! state that they keep.

use odograph::flags::parse;
use odograph::store::{ErrorClass, FlagState, MigrateOptions, migrate};
use odograph_testkit::{
    IMEI, NOON, OTHER, PostgresFixture, SqliteFixture, StoreFixture, batch, faulty_times, row, server_url, until,
};
use serde_json::Value as Json;

use crate::tasks::{Flags, Stream};

pub(crate) const CAR: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const TRUCK: &str = "22222222-2222-4222-8222-222222222222";
const BARE: &str = "33333333-3333-4333-8333-333333333333";
pub(crate) const FLAG: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
pub(crate) const OPTIONS: MigrateOptions =
    MigrateOptions { directus: true, chunk_interval: None, index_time: false, standalone_devices: false };

/// The collections as Directus 11 creates them: NOT NULL only on keys, no checks, system fields, and a relation that
/// becomes NULL when the other side is deleted.
const COLLECTIONS: &str = "
    CREATE TABLE devices (id uuid NOT NULL, imei varchar(255), model varchar(255),
        CONSTRAINT devices_pkey PRIMARY KEY (id), CONSTRAINT devices_imei_unique UNIQUE (imei));
    CREATE TABLE position_flags (id uuid NOT NULL, user_created uuid, date_created timestamptz, user_updated uuid,
        date_updated timestamptz, event integer, device uuid, ts_from timestamptz, ts_to timestamptz,
        faulty boolean DEFAULT true, reason varchar(255), CONSTRAINT position_flags_pkey PRIMARY KEY (id),
        CONSTRAINT position_flags_device_foreign FOREIGN KEY (device) REFERENCES devices (id) ON DELETE SET NULL)";

/// A database with the collections, two devices that have an IMEI and one that has none.
async fn collections() -> PostgresFixture {
    let database = PostgresFixture::new().await;
    database.execute(COLLECTIONS).await;
    database
        .execute(&format!("INSERT INTO devices VALUES ('{CAR}', '{IMEI}'), ('{TRUCK}', '{OTHER}'), ('{BARE}', NULL)"))
        .await;
    database
}

pub(crate) async fn installed() -> PostgresFixture {
    let database = collections().await;
    migrate(&database.url, &OPTIONS).await.unwrap();
    database
}

/// Bounds in milliseconds after noon.
async fn insert(database: &PostgresFixture, id: &str, device: &str, from: i64, to: i64) {
    database.execute(&insert_text(id, device, from, to)).await;
}

pub(crate) fn insert_text(id: &str, device: &str, from: i64, to: i64) -> String {
    let time = |at: i64| format!("'epoch'::timestamptz + {} * interval '1 millisecond'", NOON + at);
    format!(
        "INSERT INTO position_flags (id, user_created, device, ts_from, ts_to, reason) \
         VALUES ('{id}', '{BARE}', '{device}', {}, {}, 'tunnel')",
        time(from),
        time(to)
    )
}

/// The changes that the relay would add to the stream, oldest first.
pub(crate) async fn outbox(database: &PostgresFixture) -> Vec<Vec<(&'static str, String)>> {
    let rows = database
        .client
        .query("SELECT op, flag_id::text, seq, coalesce(old::text, ''), coalesce(new::text, '') FROM flag_outbox ORDER BY id", &[])
        .await
        .unwrap();
    rows.iter()
        .map(|row| {
            vec![
                ("v", "1".to_owned()),
                ("op", row.get(0)),
                ("flag_id", row.get(1)),
                ("seq", row.get::<_, i64>(2).to_string()),
                ("old", row.get(3)),
                ("new", row.get(4)),
            ]
        })
        .collect()
}

async fn refused(database: &PostgresFixture, sql: &str) -> String {
    let error = database.client.batch_execute(sql).await.unwrap_err();
    error.as_db_error().unwrap().message().to_owned()
}

#[tokio::test]
async fn each_change_is_announced_as_the_stream_has_it() {
    let database = installed().await;
    insert(&database, FLAG, CAR, 0, 30_000).await;
    database.execute("UPDATE position_flags SET ts_to = ts_to + interval '1 second', date_updated = now()").await;
    database.execute("UPDATE position_flags SET faulty = false").await;
    database.execute("DELETE FROM position_flags").await;
    let announced = outbox(&database).await;
    let changes: Vec<_> = announced.iter().map(|entry| parse(entry).unwrap()).collect();
    let ops: Vec<_> = announced.iter().map(|entry| entry[1].1.as_str()).collect();
    assert_eq!(ops, ["insert", "update", "update", "delete"]);
    assert!(changes.is_sorted_by(|one, next| one.seq < next.seq));
    let bounds: Vec<_> = changes.iter().map(|change| change.old.map(|old| old.to_ms() - NOON)).collect();
    assert_eq!(bounds, [None, Some(30_000), Some(31_000), Some(31_000)]);
    let FlagState::Set { window, faulty, reason } = &changes[0].state else { panic!("{changes:?}") };
    assert_eq!((window.imei().to_string(), window.from_ms()), (IMEI.to_owned(), NOON));
    assert_eq!((*faulty, reason.as_deref()), (true, Some("tunnel")));
    assert!(matches!(changes[2].state, FlagState::Set { faulty: false, .. }));
    assert_eq!(changes[3].state, FlagState::Deleted);
    let new: Json = serde_json::from_str(&announced[0][5].1).unwrap();
    assert_eq!((&new["user"], &new["ts_from"]), (&BARE.into(), &"2026-05-02T12:00:00.123Z".into()));
    let state = database.texts("position_flag_state", &["flag_id", "seq", "deleted"]).await;
    assert_eq!(state, [[FLAG.to_owned(), changes[3].seq.to_string(), "true".into()]], "the tombstone stays");
}

#[tokio::test]
async fn what_does_not_happen_is_not_announced() {
    let database = installed().await;
    insert(&database, FLAG, CAR, 0, 10).await;
    database.execute("UPDATE position_flags SET reason = reason, date_updated = now()").await;
    database.execute("BEGIN; UPDATE position_flags SET faulty = false; ROLLBACK").await;
    database.execute("BEGIN; DELETE FROM position_flags; ROLLBACK").await;
    assert_eq!(outbox(&database).await.len(), 1);
    // A change below a millisecond changes nothing, neither for positions nor for Directus.
    database
        .execute("UPDATE position_flags SET ts_from = ts_from + interval '7 microseconds' WHERE ts_from < ts_to")
        .await;
    assert_eq!(outbox(&database).await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_a_flag_is_refused() {
    let database = installed().await;
    assert!(refused(&database, &insert_text(FLAG, CAR, 10, 0)).await.contains("position_flags_window"));
    assert!(refused(&database, &insert_text(FLAG, BARE, 0, 10)).await.contains("no IMEI"));
    let unknown = "INSERT INTO position_flags (id, ts_from, ts_to) VALUES (gen_random_uuid(), now(), now())";
    assert!(refused(&database, unknown).await.contains("no IMEI"));
    let open = format!("INSERT INTO position_flags (id, device, ts_from) VALUES ('{FLAG}', '{CAR}', now())");
    assert!(refused(&database, &open).await.contains("position_flags_window"));
    let infinite = format!(
        "INSERT INTO position_flags (id, device, ts_from, ts_to) VALUES ('{FLAG}', '{CAR}', now(), 'infinity')"
    );
    assert!(refused(&database, &infinite).await.contains("position_flags_window"));
    for imei in ["12345678901234", "1234567890123456", "35630704244101X"] {
        let text = format!("UPDATE devices SET imei = '{imei}' WHERE id = '{CAR}'");
        assert!(refused(&database, &text).await.contains("devices_imei_digits"), "{imei}");
    }
    insert(&database, FLAG, CAR, 0, 10).await;
    assert!(refused(&database, "TRUNCATE position_flags").await.contains("DELETE FROM"));
    assert!(refused(&database, "UPDATE position_flags SET id = gen_random_uuid()").await.contains("keeps its id"));
    assert_eq!(outbox(&database).await.len(), 1);
}

#[tokio::test]
async fn a_device_whose_imei_changes_keeps_its_old_flags_where_they_were() {
    let database = installed().await;
    let imei_of_flag = async || database.texts("position_flag_state", &["imei", "deleted"]).await;
    insert(&database, FLAG, CAR, 0, 10).await;
    database.execute(&format!("UPDATE devices SET imei = '490154203237518' WHERE id = '{CAR}'")).await;
    assert_eq!(outbox(&database).await.len(), 1);
    database.execute("UPDATE position_flags SET reason = 'jammed'").await;
    assert_eq!(imei_of_flag().await, [["17", "false"]], "an edit does not move it");
    database.execute(&format!("UPDATE position_flags SET device = '{TRUCK}'")).await;
    assert_eq!(imei_of_flag().await, [["999999999999999", "false"]]);
    database.execute(&format!("UPDATE position_flags SET device = '{CAR}'")).await;
    assert_eq!(
        imei_of_flag().await,
        [["490154203237518", "false"]],
        "an edit that names the device takes its current IMEI"
    );
    let before = outbox(&database).await.len();
    database.execute(&format!("DELETE FROM devices WHERE id = '{CAR}'")).await;
    assert_eq!(imei_of_flag().await, [["490154203237518", "false"]], "the device is deleted, its records are not");
    assert_eq!(outbox(&database).await.len(), before);
    database.execute("DELETE FROM position_flags").await;
    assert_eq!(imei_of_flag().await, [["490154203237518", "true"]]);
}

#[tokio::test]
async fn a_flag_that_is_made_again_goes_on_counting() {
    let database = installed().await;
    insert(&database, FLAG, CAR, 0, 10).await;
    // A clock that was ahead.
    database.execute("UPDATE position_flag_state SET seq = 9000000000000000000").await;
    database.execute("UPDATE position_flags SET faulty = false").await;
    database.execute("DELETE FROM position_flags").await;
    insert(&database, FLAG, TRUCK, 0, 10).await;
    let seqs: Vec<_> = outbox(&database).await.into_iter().skip(1).map(|entry| entry[3].1.clone()).collect();
    assert_eq!(seqs, ["9000000000000000001", "9000000000000000002", "9000000000000000003"]);
    assert_eq!(database.texts("position_flag_state", &["imei", "deleted"]).await, [["999999999999999", "false"]]);
}

#[tokio::test]
async fn installing_needs_the_collections_and_takes_in_what_is_there() {
    let database = PostgresFixture::new().await;
    let missing = migrate(&database.url, &OPTIONS).await.unwrap_err();
    assert_eq!(missing.class, ErrorClass::Refuses);
    assert!(missing.source.to_string().contains("make the collection in Directus first"), "{missing:?}");
    database.execute(&COLLECTIONS.replace("ts_from timestamptz", "ts_from timestamp")).await;
    let error = migrate(&database.url, &OPTIONS).await.unwrap_err().source.to_string();
    assert!(error.contains("position_flags.ts_from is timestamp without time zone"), "{error}");
    assert_eq!(database.count("pg_trigger WHERE tgname LIKE 'odograph%'").await, 0, "all or nothing");

    let database = collections().await;
    insert(&database, FLAG, CAR, 0, 10).await;
    insert(&database, TRUCK, BARE, 0, 10).await;
    for _ in 0..2 {
        migrate(&database.url, &OPTIONS).await.unwrap();
        assert_eq!(database.texts("position_flag_state", &["flag_id", "imei"]).await, [[FLAG, "17"]]);
    }
    database.execute(&format!("UPDATE position_flags SET device = '{TRUCK}' WHERE id = '{TRUCK}'")).await;
    assert_eq!(database.count("position_flag_state").await, 2, "the operator repaired it");
    // As Directus does when the notes of a field are edited.
    database.execute("ALTER TABLE position_flags ALTER COLUMN ts_to TYPE timestamptz").await;
    database.execute("ALTER TABLE devices ALTER COLUMN imei TYPE varchar(255)").await;

    let file = SqliteFixture::new().await;
    let refused = migrate(&file.url, &OPTIONS).await.unwrap_err().source.to_string();
    assert!(refused.contains("PostgreSQL"), "{refused}");
}

#[tokio::test]
async fn changes_of_devices_are_notified() {
    let database = installed().await;
    let name = server_url();
    let (server, _) = name.rsplit_once('/').unwrap();
    let (client, mut connection) =
        tokio_postgres::connect(&format!("{server}/{}", database.name()), tokio_postgres::NoTls).await.unwrap();
    let (sender, mut notified) = tokio::sync::mpsc::unbounded_channel();
    let messages = async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                let _ = sender.send(notification.channel().to_owned());
            }
        }
    };
    tokio::spawn(messages);
    client.batch_execute("LISTEN devices; LISTEN flag_outbox").await.unwrap();
    database.execute(&format!("UPDATE devices SET model = 'FMB920' WHERE id = '{CAR}'")).await;
    assert_eq!(notified.recv().await.unwrap(), "devices");
    insert(&database, FLAG, CAR, 0, 10).await;
    assert_eq!(notified.recv().await.unwrap(), "flag_outbox");
}

#[tokio::test]
async fn without_redis_reconciliation_brings_every_flag() {
    let mut database = installed().await;
    let rows = [row(IMEI, NOON, 1), row(IMEI, NOON + 10, 1), row(OTHER, NOON, 1)];
    database.store().commit(&batch(&rows)).await.unwrap();
    insert(&database, FLAG, CAR, 0, 5).await;
    insert(&database, TRUCK, TRUCK, 0, 0).await;
    database.execute(&format!("DELETE FROM position_flags WHERE id = '{TRUCK}'")).await;
    let stream = Stream::new("redis://127.0.0.1:1");
    let pace = odograph::flags::Pace { reconcile_every: std::time::Duration::from_millis(50), ..crate::tasks::PACE };
    let flags = Flags::start_at(pace, &database.url, None, &stream, "one");
    until("the flag", async || faulty_times(&database).await == [(17, 0)]).await;
    flags.until_metric("flag_reconciled_total", 2.0).await;
    assert_eq!(database.texts("position_flag_ledger", &["deleted"]).await, [["false"], ["true"]]);
    database
        .execute("UPDATE position_flags SET ts_from = ts_from + interval '5 ms', ts_to = ts_to + interval '5 ms'")
        .await;
    until("the moved flag", async || faulty_times(&database).await == [(17, 10)]).await;
    // Nothing is inferred about a flag that Directus does not know.
    database.execute("DELETE FROM position_flag_state").await;
    database.execute("UPDATE devices SET imei = NULL").await;
    flags.until_metric("flag_reconciled_total", 3.0).await;
    assert_eq!(faulty_times(&database).await, [(17, 10)]);
    flags.stop().await;
}
