//! What can go wrong with the SQLite store.

use odograph::store::file_of;
use odograph::store::{DatabaseUrl, ErrorClass, MigrateOptions, PositionsTable, Schema, SqliteStore, Store, migrate};
use odograph_testkit::{
    IMEI, NOON, SqliteFixture, StoreFixture, batch, columns, counts, error_class, open_sqlite, row, some_lane,
};
use sqlx::Row as _;

#[tokio::test]
async fn rows_survive_closing_and_a_store_that_was_only_dropped() {
    let mut database = SqliteFixture::new().await;
    let samples = [row(IMEI, NOON, 1), row(IMEI, NOON, 2)];
    database.store.commit(&batch(&samples[..1])).await.unwrap();
    database.store.close().await;
    database.store.commit(&batch(&samples)).await.unwrap();
    database.store = open_sqlite(&database.url).await;
    assert_eq!(counts(database.store.commit(&batch(&samples)).await.unwrap()), (0, 2));
    assert_eq!(database.rows("positions").await, samples.map(|sample| sample.cells()));
}

#[tokio::test]
async fn the_tables_have_the_columns_of_the_code() {
    let database = SqliteFixture::new().await;
    let expected: Vec<_> = columns().iter().map(|column| (column.0.to_owned(), column.2.to_owned())).collect();
    for table in ["positions", "latest_positions"] {
        let query = "SELECT name, type FROM pragma_table_info($1) ORDER BY cid";
        let rows = sqlx::query(query).bind(table).fetch_all(&mut database.connect().await).await.unwrap();
        let found: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(found, expected, "{table}");
    }
}

#[tokio::test]
async fn migrating_is_safe_to_repeat_and_to_do_twice_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::sqlite(directory.path().join("positions.db"));
    let options = MigrateOptions { index_time: true, ..MigrateOptions::default() };
    let (one, two, three) = tokio::join!(
        migrate(&url, &options),
        migrate(&url, &options),
        SqliteStore::open(file_of(&url).unwrap(), some_lane())
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one.applied.is_empty() || two.applied.is_empty(), "at most one of them applied them");
    assert_eq!(one.positions, PositionsTable::Embedded);
    assert_eq!(three.unwrap().schema().await.unwrap(), Schema::Current);
}

/// While a new file is switched to the write-ahead log, SQLite says "locked" at once, without its busy timeout.
#[tokio::test]
async fn a_new_file_opens_for_all_who_open_it_at_once() {
    for _ in 0..40 {
        let directory = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::sqlite(directory.path().join("positions.db"));
        let options = MigrateOptions::default();
        for opened in futures_util::future::join_all((0..8).map(|_| migrate(&url, &options))).await {
            opened.unwrap();
        }
    }
}

#[tokio::test]
async fn a_newer_schema_is_left_alone_and_reported() {
    let database = SqliteFixture::new().await;
    let invent = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                  VALUES (9999, 'from the future', true, '', 0)";
    sqlx::raw_sql(invent).execute(&mut database.connect().await).await.unwrap();
    let mut store = open_sqlite(&database.url).await;
    assert_eq!(store.schema().await.unwrap(), Schema::Newer);
    assert_eq!(error_class(migrate(&database.url, &MigrateOptions::default())).await, ErrorClass::Refuses);
}

#[tokio::test]
async fn a_file_that_cannot_serve_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let made = DatabaseUrl::sqlite(directory.path().join("made/positions.db"));
    assert!(SqliteStore::open(file_of(&made).unwrap(), some_lane()).await.is_ok(), "a missing directory is created");
    let below_a_file = DatabaseUrl::sqlite(directory.path().join("made/positions.db/positions.db"));
    assert_eq!(
        SqliteStore::open(file_of(&below_a_file).unwrap(), some_lane()).await.map(|_| ()).unwrap_err().class,
        ErrorClass::Refuses
    );
    let other = directory.path().join("other.db");
    std::fs::write(&other, "this is text and long enough to be read as the header of a database").unwrap();
    let other =
        SqliteStore::open(file_of(&DatabaseUrl::sqlite(other)).unwrap(), some_lane()).await.map(|_| ()).unwrap_err();
    assert_eq!(other.class, ErrorClass::Refuses, "{other:?}");
    let postgres = DatabaseUrl::parse("postgres://u@localhost/db").unwrap();
    assert!(file_of(&postgres).is_none());
}
