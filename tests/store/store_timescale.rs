//! What can go wrong with the TimescaleDB store: schema, lost connections, refusals, concurrent writers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use odograph::store::server_of;
use odograph::store::{DatabaseUrl, ErrorClass, MigrateOptions, PositionsTable, Schema, migrate};
use odograph_testkit::{
    IMEI, NOON, PostgresFixture, PrivateServer, StopMode, StoreFixture, batch, columns, counts, error_class, fleet,
    open_postgres, row, server_url, until_committed,
};

fn db_init() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("db-init")
}

/// The names of the migration files.
fn migration_names() -> Vec<String> {
    let files = std::fs::read_dir(db_init()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = files.filter_map(|file| Some(file.strip_suffix(".sql")?.to_owned())).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_schema_is_outdated_current_then_newer() {
    let mut database = PostgresFixture::empty().await;
    assert_eq!(database.store.schema().await.unwrap(), Schema::Outdated);
    let report = migrate(&database.url, &MigrateOptions::default()).await.unwrap();
    assert_eq!(report.applied, migration_names());
    assert!(matches!(report.positions, PositionsTable::Hypertable { .. }), "{report:?}");
    assert_eq!(database.store.schema().await.unwrap(), Schema::Current);

    let invent = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                  VALUES (9999, 'from the future', true, '', 0)";
    database.client.batch_execute(invent).await.unwrap();
    assert_eq!(database.store.schema().await.unwrap(), Schema::Newer);
    assert_eq!(error_class(migrate(&database.url, &MigrateOptions::default())).await, ErrorClass::Refuses);
}

#[tokio::test]
async fn migrating_is_safe_to_repeat_and_to_do_twice_at_once() {
    let database = PostgresFixture::empty().await;
    let options = MigrateOptions::default();
    let (one, two) = tokio::join!(migrate(&database.url, &options), migrate(&database.url, &options));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.positions, two.positions);
    assert_eq!(one.applied.len() + two.applied.len(), migration_names().len(), "each is applied by one of them");
    assert!(migrate(&database.url, &options).await.unwrap().applied.is_empty());
    // Also when run by hand, statement by statement, on an existing schema.
    for name in migration_names() {
        let sql = std::fs::read_to_string(db_init().join(format!("{name}.sql"))).unwrap();
        database.client.batch_execute(&sql).await.unwrap();
    }
}

#[tokio::test]
async fn options_set_the_chunk_interval_and_the_index_on_time() {
    let mut database = PostgresFixture::new().await;
    let options =
        MigrateOptions { chunk_interval: Some(Duration::from_hours(6)), index_time: true, ..MigrateOptions::default() };
    for _ in 0..2 {
        migrate(&database.url, &options).await.unwrap();
    }
    let interval = "SELECT extract(epoch FROM time_interval)::bigint FROM timescaledb_information.dimensions";
    assert_eq!(database.client.query_one(interval, &[]).await.unwrap().get::<_, i64>(0), 6 * 3600);
    let indexes = "SELECT indexname::text FROM pg_indexes WHERE tablename = 'positions' ORDER BY 1";
    let indexes: Vec<String> =
        database.client.query(indexes, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(indexes, ["positions_pkey", "positions_ts_idx"]);
    assert_eq!(counts(database.store.commit(&batch([&row(IMEI, NOON, 1)])).await.unwrap()), (1, 0));
}

#[tokio::test]
async fn the_tables_have_the_columns_of_the_code() {
    let database = PostgresFixture::new().await;
    let expected: Vec<_> = columns().iter().map(|column| (column.0.to_owned(), column.1.to_owned())).collect();
    for table in ["positions", "latest_positions"] {
        let query = "SELECT column_name::text, data_type::text FROM information_schema.columns
                     WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position";
        let found: Vec<(String, String)> =
            database.client.query(query, &[&table]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(found, expected, "{table}");
    }
}

#[tokio::test]
async fn a_foreign_table_of_the_same_name_is_refused() {
    let database = PostgresFixture::empty().await;
    let foreign = "CREATE TABLE positions (imei bigint, ts timestamptz, PRIMARY KEY (imei, ts))";
    database.client.batch_execute(foreign).await.unwrap();
    let error = migrate(&database.url, &MigrateOptions::default()).await.unwrap_err();
    assert!(error.source.to_string().contains("it lacks fingerprint integer"), "{error:?}");
}

#[tokio::test]
async fn a_role_that_may_not_create_the_extension_reads_why() {
    let mut database = PostgresFixture::empty().await;
    let role = format!("role_of_{}", database.name());
    let create = format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}");
    database.client.batch_execute(&create).await.unwrap();
    let url = database.url_as(&role);
    let refused = migrate(&url, &MigrateOptions::default()).await;
    let schema = database.store.schema().await.unwrap();
    let grant = format!("GRANT CREATE ON DATABASE {} TO {role}", database.name());
    database.client.batch_execute(&grant).await.unwrap();
    let repaired = migrate(&url, &MigrateOptions::default()).await;
    let name = role.clone();
    let forget = format!("REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}");
    database.client.batch_execute(&forget).await.unwrap();

    assert_eq!(refused.unwrap_err().class, ErrorClass::Refuses);
    assert_eq!(schema, Schema::Outdated);
    assert_eq!(repaired.unwrap().applied, migration_names()[1..], "the first one stayed");
}

#[tokio::test]
async fn the_operator_is_called_where_waiting_does_not_help() {
    let mut database = PostgresFixture::empty().await;
    let batch = batch([&row(IMEI, NOON, 1)]);
    assert_eq!(error_class(database.store.commit(&batch)).await, ErrorClass::Refuses, "no tables");

    let mut stranger = open_postgres(&database.url_as("nobody_of_that_name"));
    assert_eq!(error_class(stranger.commit(&batch)).await, ErrorClass::Refuses, "no such role");
    assert_eq!(error_class(stranger.schema()).await, ErrorClass::Refuses, "no such role");

    let (server, _) = server_url().rsplit_once('/').map(|(server, name)| (server.to_owned(), name.len())).unwrap();
    let elsewhere = DatabaseUrl::parse(&format!("{server}/no_database_of_that_name")).unwrap();
    assert_eq!(error_class(open_postgres(&elsewhere).commit(&batch)).await, ErrorClass::Refuses);
    assert_eq!(error_class(migrate(&elsewhere, &MigrateOptions::default())).await, ErrorClass::Refuses);

    migrate(&database.url, &MigrateOptions::default()).await.unwrap();
    let name = database.name().to_owned();
    let set_read_only = |on| format!("ALTER DATABASE {name} SET default_transaction_read_only = {on}");
    database.client.batch_execute(&set_read_only("on")).await.unwrap();
    assert_eq!(error_class(database.store.commit(&batch)).await, ErrorClass::Refuses, "read-only");
    database.client.batch_execute(&set_read_only("off")).await.unwrap();
    // The connection with the error is closed, so the operator's repair counts at once.
    assert_eq!(counts(database.store.commit(&batch).await.unwrap()), (1, 0));
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The kernel accepts and nothing answers: the whole of connecting has one timeout.
    let silent = DatabaseUrl::parse(&format!("postgres://u@127.0.0.1:{port}/db?connect_timeout=1")).unwrap();
    let batch = batch([&row(IMEI, NOON, 1)]);
    assert_eq!(error_class(open_postgres(&silent).commit(&batch)).await, ErrorClass::Unavailable);
    assert_eq!(error_class(migrate(&silent, &MigrateOptions::default())).await, ErrorClass::Unavailable);
    drop(listener);
    assert_eq!(error_class(open_postgres(&silent).schema()).await, ErrorClass::Unavailable);
    assert_eq!(error_class(migrate(&silent, &MigrateOptions::default())).await, ErrorClass::Unavailable);
}

#[tokio::test]
async fn a_session_is_durable_and_bounded() {
    let database = PostgresFixture::empty().await;
    let DatabaseUrl::Postgres(url) = &database.url else { panic!("not PostgreSQL") };
    let (client, connection) = url.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for (setting, value) in [
        ("synchronous_commit", "on"),
        ("lock_timeout", "10s"),
        ("statement_timeout", "45s"),
        ("idle_in_transaction_session_timeout", "30s"),
        ("TimeZone", "UTC"),
        ("application_name", "odograph"),
        ("tcp_keepalives_idle", "15"),
        ("tcp_user_timeout", "30000"),
    ] {
        let shown: String = client.query_one(&format!("SHOW {setting}"), &[]).await.unwrap().get(0);
        assert_eq!(shown, value, "{setting}");
    }
}

#[tokio::test]
async fn a_connection_killed_between_commits_is_replaced() {
    let mut database = PostgresFixture::new().await;
    let (first, second) = (batch([&row(IMEI, NOON, 1)]), batch([&row(IMEI, NOON, 1), &row(IMEI, NOON, 2)]));
    database.store.commit(&first).await.unwrap();
    assert_eq!(database.terminate().await, 1);
    assert_eq!(until_committed(&mut database.store, &second).await, (1, 1));
    assert_eq!(database.count("positions").await, 2);
}

#[tokio::test]
async fn a_connection_killed_during_a_commit_leaves_nothing_or_all() {
    let mut database = PostgresFixture::new().await;
    let batch = batch(&fleet(50, 4));
    let blocker = database.blocker().await;
    let mut store = open_postgres(&database.url);
    let disturb = async {
        database.until_blocked().await;
        database.terminate().await
    };
    let (failed, killed) = tokio::join!(store.commit(&batch), disturb);
    assert_eq!((failed.unwrap_err().class, killed), (ErrorClass::Unavailable, 1));
    blocker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(database.count("positions").await, 0);
    assert_eq!(counts(store.commit(&batch).await.unwrap()), (200, 0));
    assert_eq!(counts(database.store.commit(&batch).await.unwrap()), (0, 200));
}

#[tokio::test]
async fn a_commit_cancelled_while_it_waits_leaves_no_transaction_behind() {
    let mut database = PostgresFixture::new().await;
    let batch = batch(&fleet(50, 4));
    let blocker = database.blocker().await;
    let mut store = open_postgres(&database.url);
    tokio::select! { done = store.commit(&batch) => panic!("{done:?}"), () = database.until_blocked() => {} }
    blocker.batch_execute("COMMIT").await.unwrap();
    // The old backend may still be running: the keys decide which of the two was first.
    assert_eq!(store.commit(&batch).await.map(|done| done.inserted() + done.duplicates()).unwrap(), 200);
    assert_eq!(database.count("positions").await, 200);
    assert_eq!(counts(database.store.commit(&batch).await.unwrap()), (0, 200));
}

#[tokio::test]
async fn two_writers_with_the_same_rows_in_opposite_order_both_finish() {
    let database = PostgresFixture::new().await;
    let mut stores = [open_postgres(&database.url), open_postgres(&database.url)];
    let [one, two] = &mut stores;
    for round in 0..10 {
        let mut samples = fleet(500, 4);
        for sample in &mut samples {
            sample.row.fingerprint = round;
        }
        let forward = batch(&samples);
        let backward = batch(samples.iter().rev());
        let (one, two) = tokio::join!(until_committed(one, &forward), until_committed(two, &backward));
        assert_eq!(one.0 + two.0, 2000);
    }
    assert_eq!(database.count("positions").await, 20_000);
    assert_eq!(database.count("latest_positions").await, 500);
}

#[tokio::test]
async fn a_plain_server_serves_and_restarts_are_survived() {
    let server = PrivateServer::new("stores");
    let url = DatabaseUrl::parse(&server.url).unwrap();
    let mut store = open_postgres(&url);
    let samples = fleet(50, 4);
    let (first, all) = (batch(&samples[..100]), batch(&samples));

    // Without its library loaded, TimescaleDB is unavailable although it is installed.
    server.connect().await.batch_execute("ALTER SYSTEM SET shared_preload_libraries = plpgsql").await.unwrap();
    server.stop(StopMode::Fast);
    assert_eq!(error_class(store.commit(&first)).await, ErrorClass::Unavailable);
    server.start();
    let options =
        MigrateOptions { chunk_interval: Some(Duration::from_hours(6)), index_time: true, ..MigrateOptions::default() };
    assert_eq!(migrate(&url, &options).await.unwrap().positions, PositionsTable::Plain);
    assert_eq!(store.schema().await.unwrap(), Schema::Current);
    assert_eq!(counts(store.commit(&first).await.unwrap()), (100, 0));

    // After the operator loads it, migrating again moves the rows into a hypertable.
    server.connect().await.batch_execute("ALTER SYSTEM RESET shared_preload_libraries").await.unwrap();
    server.stop(StopMode::Fast);
    server.start();
    let report = migrate(&url, &MigrateOptions::default()).await.unwrap();
    assert!(matches!(report.positions, PositionsTable::Hypertable { .. }), "{report:?}");
    assert_eq!(until_committed(&mut store, &all).await, (100, 100));

    // A crash under a used connection: the acknowledged rows are stored.
    server.stop(StopMode::Immediate);
    server.start();
    assert_eq!(until_committed(&mut store, &all).await, (0, 200));
    let count = server.connect().await.query_one("SELECT count(*) FROM positions", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 200);
}

#[test]
fn the_url_of_a_file_names_no_server() {
    assert!(server_of(&DatabaseUrl::sqlite("positions.db")).is_none());
}
