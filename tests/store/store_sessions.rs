//! Settings of a role or a database that would make a session wrong: set again if that is possible, and refused otherwise.

use odograph::store::{DatabaseUrl, ErrorClass, Ledger as _, MigrateOptions, migrate};
use odograph_testkit::{
    IMEI, NOON, PostgresFixture, StoreFixture, batch, faulty_times, open_postgres, row, server_url, set, window,
};

#[tokio::test]
async fn a_position_is_flagged_although_the_database_asks_for_repeatable_read() {
    let mut database = PostgresFixture::new().await;
    for setting in
        ["default_transaction_isolation = 'repeatable read'", "row_security = on", "synchronous_commit = off"]
    {
        database.execute(&format!("ALTER DATABASE {} SET {setting}", database.name())).await;
    }
    // A transaction of its own notes what it runs under.
    database
        .execute(
            "ALTER TABLE ingest_checkpoints ADD COLUMN seen text DEFAULT \
             current_setting('transaction_isolation') || ' ' || current_setting('row_security') || ' ' || \
             current_setting('synchronous_commit')",
        )
        .await;
    database.store().commit(&batch(&[row(IMEI, NOON, 1)])).await.unwrap();
    assert_eq!(database.texts("ingest_checkpoints", &["seen"]).await[0], ["read committed off on"]);

    // Rows arrive while the flag waits for its device's lock: it must see them after the wait.
    let (mut ledger, other) = (database.ledger(), another_client(&database).await);
    let device_lock = (0x0a5f_i64 << 50) + IMEI.parse::<i64>().unwrap();
    other.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({device_lock})")).await.unwrap();
    let flags = [set(1, 1, window(IMEI, 0, 10))];
    let flagging = ledger.apply(&flags);
    tokio::pin!(flagging);
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = \
                 (SELECT oid FROM pg_database WHERE datname = current_database())";
    let waiting = async {
        loop {
            if other.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        other
            .batch_execute(
                "INSERT INTO positions SELECT (jsonb_populate_record(p, jsonb_build_object('fingerprint', 2))).* FROM positions p; \
                 COMMIT",
            )
            .await
            .unwrap();
    };
    let (flagged, ()) = tokio::join!(flagging, waiting);
    flagged.unwrap();
    assert_eq!(faulty_times(&database).await, [(17, 0), (17, 0)], "both rows");
}

async fn another_client(database: &PostgresFixture) -> tokio_postgres::Client {
    let (server, _) = server_url().rsplit_once('/').map(|(server, name)| (server.to_owned(), name.to_owned())).unwrap();
    let url = format!("{server}/{}", database.name());
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_session_that_skips_triggers_and_keys_is_refused_with_its_cause() {
    let database = PostgresFixture::new().await;
    database.execute(&format!("ALTER DATABASE {} SET session_replication_role = replica", database.name())).await;
    let error = open_postgres(&database.url).commit(&batch(&[row(IMEI, NOON, 1)])).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Refuses);
    let cause = error.source.to_string();
    assert!(cause.contains("session_replication_role = replica") && cause.contains("RESET"), "{cause}");
    let error = migrate(&database.url, &MigrateOptions::default()).await.unwrap_err();
    assert!(error.source.to_string().contains("session_replication_role"), "{error:?}");
    assert_eq!(database.count("positions").await, 0);
}

#[tokio::test]
async fn a_database_whose_encoding_lacks_letters_is_refused() {
    let name = format!("latin_{}", std::process::id());
    let server = server_url();
    let (client, connection) = tokio_postgres::connect(&server, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    client.batch_execute(&create).await.unwrap();
    let (host, _) = server.rsplit_once('/').unwrap();
    let url = DatabaseUrl::parse(&format!("{host}/{name}")).unwrap();
    let error = migrate(&url, &MigrateOptions::default()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Refuses);
    let cause = error.source.to_string();
    assert!(cause.contains("LATIN1") && cause.contains("UTF8"), "{cause}");
    let error = open_postgres(&url).schema().await.unwrap_err();
    assert!(error.source.to_string().contains("LATIN1"), "{error:?}");
    client.batch_execute(&format!("DROP DATABASE {name} (FORCE)")).await.unwrap();
}
