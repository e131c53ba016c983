//! Error messages when a real server refuses: they name the cause and the remedy.

use odograph::store::features;
use odograph::store::{DatabaseUrl, ErrorClass, MigrateOptions, Retention, RetentionClock, migrate, retain};
use odograph_testkit::{IMEI, NOON, PostgresFixture, PrivateServer, StopMode, StoreFixture, batch, open_postgres, row};

/// The error of `odograph migrate`.
async fn refusal(url: &DatabaseUrl) -> String {
    let error = migrate(url, &MigrateOptions::default()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Refuses, "{error:?}");
    error.source.to_string()
}

#[tokio::test]
async fn logging_in() {
    let server = PrivateServer::new("schema-login");
    let client = server.connect().await;
    client.batch_execute("CREATE ROLE ingest LOGIN PASSWORD 'right'").await.unwrap();
    server.admit("host all ingest 127.0.0.1/32 scram-sha-256").await;
    let said = refusal(&server.url_with("ingest:wrong", "")).await;
    assert!(said.contains("28P01") && said.contains("check user and password"), "{said}");
    assert!(!said.contains("wrong"), "no password in an error: {said}");
    let said = refusal(&server.url_with("ingest", "")).await;
    assert!(said.contains("password missing"), "{said}");
    let said = refusal(&server.url_with("nobody", "")).await;
    assert!(said.contains("28000") && said.contains("pg_hba.conf"), "{said}");
    let said = refusal(&server.url_with("odograph", "dbname=nowhere")).await;
    assert!(said.contains("3D000") && said.contains("CREATE DATABASE"), "{said}");
    // The role may log in, but not create tables.
    client.batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await.unwrap();
    let said = refusal(&server.url_with("ingest:right", "")).await;
    assert!(said.contains("42501") && said.contains("Roles"), "{said}");
}

#[tokio::test]
async fn a_database_that_takes_no_writes() {
    let database = PostgresFixture::empty().await;
    let read_only = format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name());
    database.client.batch_execute(&read_only).await.unwrap();
    let said = refusal(&database.url).await;
    assert!(said.contains("25006") && said.contains("RESET default_transaction_read_only"), "{said}");

    let server = PrivateServer::new("schema-standby");
    let url = server.url_with("odograph", "");
    migrate(&url, &MigrateOptions::default()).await.unwrap();
    server.write("standby.signal", "").await;
    server.stop(StopMode::Fast);
    server.start();
    let said = refusal(&url).await;
    assert!(said.contains("is a standby") && said.contains("name the primary"), "{said}");
    // A store that only reads may use a standby.
    features(&url).await.unwrap();
}

#[tokio::test]
async fn a_table_that_somebody_dropped() {
    let mut database = PostgresFixture::new().await;
    database.client.batch_execute("DROP TABLE IF EXISTS quarantined_records").await.unwrap();
    let retention = Retention { positions: None, quarantine: Some(std::time::Duration::from_hours(24)) };
    let present = RetentionClock::new(std::time::SystemTime::now(), None);
    let error = retain(&database.url, &retention, &present).await.unwrap_err();
    let said = error.source.to_string();
    assert!(said.contains("42P01") && said.contains("run `odograph migrate`"), "{said}");

    // The same remedy applies to the store's own table.
    database.client.batch_execute("DROP VIEW positions_named; DROP TABLE positions").await.unwrap();
    let batch = batch([&row(IMEI, NOON, 1)]);
    let error = database.store.commit(&batch).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Refuses);
    assert!(error.source.to_string().contains("run `odograph migrate`"), "{error:?}");
    migrate(&database.url, &MigrateOptions::default()).await.unwrap();
    database.store.commit(&batch).await.unwrap();
}

#[tokio::test]
async fn a_timescaledb_that_is_too_old_or_not_the_one_of_its_library() {
    let server = PrivateServer::new("schema-version");
    let url = server.url_with("odograph", "");
    migrate(&url, &MigrateOptions::default()).await.unwrap();
    // No older package is available here, so the catalog is changed. Without the library, nothing notices.
    let set = |version: &str| format!("UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'timescaledb'");
    server.connect().await.batch_execute("ALTER SYSTEM SET shared_preload_libraries = plpgsql").await.unwrap();
    server.stop(StopMode::Fast);
    server.start();
    server.connect().await.batch_execute(&set("2.12.2")).await.unwrap();
    let said = refusal(&url).await;
    assert!(
        said.contains("TimescaleDB 2.12.2 is too old") && said.contains("ALTER EXTENSION timescaledb UPDATE"),
        "{said}"
    );
    let error = features(&url).await.unwrap_err();
    assert!(error.source.to_string().contains("too old"), "{error:?}");

    // As after an update of the package under a running database: the library has another version.
    server.connect().await.batch_execute(&set("2.14.9")).await.unwrap();
    server.connect().await.batch_execute("ALTER SYSTEM RESET shared_preload_libraries").await.unwrap();
    server.stop(StopMode::Fast);
    server.start();
    let error = migrate(&url, &MigrateOptions::default()).await.unwrap_err();
    let said = error.source.to_string();
    assert!(said.contains("58P01") && said.contains("ALTER EXTENSION timescaledb UPDATE"), "{said}");
    let mut store = open_postgres(&url);
    assert!(store.schema().await.is_err());
}
