//! The whole schema: code, both databases and documentation agree, and views show the stored values.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use odograph::store::features;
use odograph::store::{ColumnType, Columnstore, ELEMENTS, MigrateOptions, column_of, migrate};
use odograph_testkit::{IMEI, NOON, PostgresFixture, Sample, SqliteFixture, StoreFixture, batch, columns, row};
use serde_json::{Value as Json, json};
use sqlx::Row as _;

/// One element for each form that views show: a column, scaled, signed, text, bytes, unknown, and a value that did not
/// fit.
fn sample() -> Sample {
    let mut sample = row(IMEI, NOON, 7);
    sample.row.event_io_id = 239;
    for (id, value) in [(239, 1), (66, 24_079), (181, 11), (17, -8000)] {
        sample.row.elements.set(column_of(id).unwrap(), value);
    }
    r#"{"12":1500,"25":65436,"256":"57564d00","78":0,"60001":3,"240":7,"11":18446744073709551615,"281":"01ff"}"#
        .clone_into(&mut sample.io);
    sample
}

fn expected_elements() -> Json {
    json!({
        "Ignition": {"value": true, "unit": null},
        "External Voltage": {"value": 24.079, "unit": "V"},
        "GNSS PDOP": {"value": 1.1, "unit": null},
        "Axis X": {"value": -8000, "unit": "mG"},
        "Fuel Used GPS": {"value": 1.5, "unit": "l"},
        "BLE Temperature #1": {"value": -1, "unit": "°C"},
        "VIN (256)": {"value": "WVM", "unit": null},
        "iButton": {"value": "0000000000000000", "unit": null},
        "element 60001": {"value": 3, "unit": null},
        "Movement": {"value": null, "unit": null, "fault": "out of range", "raw": 7},
        "ICCID1": {"value": "18446744073709551615", "unit": null},
        "Fault Codes (281)": {"value": "01ff", "unit": null},
    })
}

#[tokio::test]
async fn views_of_postgresql_show_names_units_and_scaled_values() {
    let mut database = PostgresFixture::new().await;
    database.store.commit(&batch([&sample()])).await.unwrap();
    for view in ["positions_named", "latest_named"] {
        let query = format!(
            "SELECT imei, imei_number, event, ignition, external_voltage_mv, elements::text, ts::text FROM {view} \
             WHERE imei_number = 17"
        );
        let row = database.client.query_one(&query, &[]).await.unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), (IMEI, 17));
        assert_eq!(row.get::<_, &str>(2), "Ignition");
        assert_eq!((row.get::<_, bool>(3), row.get::<_, i32>(4)), (true, 24_079));
        assert_eq!(serde_json::from_str::<Json>(row.get(5)).unwrap(), expected_elements());
    }
    // The planner finds the device by the key, also through the view.
    let plan =
        database.client.query("EXPLAIN SELECT ts FROM positions_named WHERE imei_number = 17", &[]).await.unwrap();
    let plan: String = plan.iter().map(|row| row.get::<_, String>(0) + "\n").collect();
    assert!(plan.contains("positions_pkey") && !plan.contains("io_elements"), "{plan}");
}

#[tokio::test]
async fn views_of_sqlite_show_the_same() {
    let mut database = SqliteFixture::new().await;
    database.store.commit(&batch([&sample()])).await.unwrap();
    for view in ["positions_named", "latest_named"] {
        let query = format!("SELECT imei, imei_number, event, ts, ts_ms, elements FROM {view} WHERE imei_number = 17");
        let query = sqlx::query(sqlx::AssertSqlSafe(query));
        let row = query.fetch_one(&mut database.connect().await).await.unwrap();
        assert_eq!((row.get::<&str, _>(0), row.get::<i64, _>(1), row.get::<&str, _>(2)), (IMEI, 17, "Ignition"));
        assert_eq!((row.get::<&str, _>(3), row.get::<i64, _>(4)), ("2026-05-02T12:00:00.123Z", NOON));
        let mut expected = expected_elements();
        // SQLite's tables have no booleans.
        expected["Ignition"]["value"] = json!(1);
        expected["BLE Temperature #1"]["value"] = json!(-1.0);
        assert_eq!(serde_json::from_str::<Json>(row.get(5)).unwrap(), expected);
    }
}

#[tokio::test]
async fn the_view_by_device_comes_with_the_table_devices_and_lets_it_change() {
    let mut database = PostgresFixture::new().await;
    database.store.commit(&batch([&sample()])).await.unwrap();
    let options = MigrateOptions::default();
    assert!(!migrate(&database.url, &options).await.unwrap().by_device);
    // As Directus creates it, with any text in imei.
    let make = format!(
        "CREATE TABLE devices (id serial PRIMARY KEY, imei varchar(255) UNIQUE, model varchar(255), plate text); \
         INSERT INTO devices (imei, model, plate) VALUES ('{IMEI}', 'FMB920', 'KA 1'), ('none', 'FMB003', 'KA 2'), \
         (NULL, NULL, NULL)"
    );
    database.client.batch_execute(&make).await.unwrap();
    let report = migrate(&database.url, &options).await.unwrap();
    assert!(report.by_device && report.applied.is_empty() && report.restored.is_empty(), "{report:?}");
    let query = "SELECT imei, model, device ->> 'plate', ts FROM positions_by_device WHERE device ->> 'plate' = 'KA 1'";
    let rows = database.client.query("SELECT model FROM positions_by_device", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    let found = database.client.query_one(&query.replace(", ts", ""), &[]).await.unwrap();
    assert_eq!((found.get(0), found.get(1), found.get(2)), (IMEI, "FMB920", "KA 1"));
    // Directus does this when a field is edited. A view of that column would refuse it.
    let edit = "ALTER TABLE devices ALTER COLUMN imei TYPE varchar(15); ALTER TABLE devices DROP COLUMN plate; \
                ALTER TABLE devices ADD COLUMN organisation integer";
    database.client.batch_execute(edit).await.unwrap();
    assert!(migrate(&database.url, &options).await.unwrap().by_device);
    let found = database.client.query_one("SELECT imei FROM positions_by_device", &[]).await.unwrap();
    assert_eq!(found.get::<_, &str>(0), IMEI);
}

#[tokio::test]
async fn devices_are_made_only_when_asked_for() {
    let options = MigrateOptions { standalone_devices: true, ..MigrateOptions::default() };
    let mut database = PostgresFixture::new().await;
    database.store.commit(&batch([&sample()])).await.unwrap();
    for _ in 0..2 {
        assert!(migrate(&database.url, &options).await.unwrap().by_device);
    }
    let add = format!("INSERT INTO devices (imei, model) VALUES ('{IMEI}', 'FMB003')");
    database.client.batch_execute(&add).await.unwrap();
    let model: String = database.client.query_one("SELECT model FROM positions_by_device", &[]).await.unwrap().get(0);
    assert_eq!(model, "FMB003");
    assert!(database.client.batch_execute("INSERT INTO devices (imei) VALUES ('17')").await.is_err(), "not an IMEI");

    let mut database = SqliteFixture::new().await;
    database.store.commit(&batch([&sample()])).await.unwrap();
    assert!(!migrate(&database.url, &MigrateOptions::default()).await.unwrap().by_device);
    for _ in 0..2 {
        assert!(migrate(&database.url, &options).await.unwrap().by_device);
    }
    let mut connection = database.connect().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(add)).execute(&mut connection).await.unwrap();
    let model: String =
        sqlx::query_scalar("SELECT model FROM positions_by_device").fetch_one(&mut connection).await.unwrap();
    assert_eq!(model, "FMB003");
}

#[tokio::test]
async fn what_was_dropped_by_hand_comes_back_or_is_named() {
    let database = PostgresFixture::new().await;
    let options = MigrateOptions::default();
    let drop = "DROP TABLE position_flag_ledger; DROP VIEW latest_named; DELETE FROM io_elements WHERE id < 100";
    database.client.batch_execute(drop).await.unwrap();
    let report = migrate(&database.url, &options).await.unwrap();
    assert_eq!(report.restored, ["position_flag_ledger", "latest_named"]);
    assert!(report.applied.is_empty());
    assert_eq!(migrate(&database.url, &options).await.unwrap().restored, Vec::<String>::new());

    let drop = "DROP VIEW positions_named, latest_named; ALTER TABLE positions DROP COLUMN hdop";
    database.client.batch_execute(drop).await.unwrap();
    let error = migrate(&database.url, &options).await.unwrap_err();
    let said = error.source.to_string();
    assert!(said.contains("0001_positions") && said.contains("it lacks hdop real"), "{said}");
}

/// Debian's TimescaleDB is the build under the Apache licence. The other build is not available here.
#[tokio::test]
async fn a_build_without_columnstore_works_and_is_named() {
    let database = PostgresFixture::new().await;
    let features = features(&database.url).await.unwrap();
    let license: String = database.client.query_one("SHOW timescaledb.license", &[]).await.unwrap().get(0);
    if license == "timescale" {
        assert_eq!((features.columnstore, features.lacks()), (Columnstore::On, None));
    } else {
        assert_eq!(features.columnstore, Columnstore::NotInThisBuild);
        assert!(features.lacks().unwrap().contains("no columnstore"), "{features:?}");
    }
}

/// Names in the rows of a table in `docs/database.md`.
fn documented(heading: &str, column: usize) -> Vec<String> {
    let text = include_str!("../../docs/database.md");
    let section = text.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    section
        .lines()
        .filter(|line| line.starts_with('|') && line.contains('`'))
        .flat_map(|line| {
            let cell = line.split('|').nth(column).unwrap_or_default();
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_typed_element_is_documented_as_it_is() {
    let text = include_str!("../../docs/database.md");
    for element in ELEMENTS {
        let column_type = match element.column_type {
            ColumnType::Boolean => "boolean".to_owned(),
            ColumnType::SmallInt if element.signed => "smallint (two's complement)".to_owned(),
            ColumnType::SmallInt => "smallint".to_owned(),
            ColumnType::Integer => "integer".to_owned(),
            ColumnType::BigInt => "bigint".to_owned(),
            ColumnType::RealTenths => "real (a tenth of the wire integer)".to_owned(),
        };
        let mut line = String::new();
        write!(line, "| {} | `{}` | {column_type} | {} |", element.id, element.name, element.width).unwrap();
        assert!(text.contains(&line), "{line}");
    }
    let expected: BTreeSet<_> = columns().iter().map(|column| column.0.to_owned()).collect();
    let documented: BTreeSet<_> =
        documented("positions\n", 1).into_iter().chain(documented("positions\n", 2)).collect();
    let missing: Vec<_> = expected.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/database.md lacks {missing:?}");
}

/// Every other table and view has the same columns in the database and in the documentation.
#[tokio::test]
async fn every_table_is_documented_with_all_of_its_columns() {
    let database = PostgresFixture::new().await;
    let query = "SELECT table_name::text, array_agg(column_name::text ORDER BY ordinal_position) \
                 FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT IN \
                 ('_sqlx_migrations', 'positions', 'latest_positions', 'positions_named', 'latest_named') GROUP BY 1";
    let tables = database.client.query(query, &[]).await.unwrap();
    assert!(tables.len() >= 3);
    for table in tables {
        let (name, columns): (String, Vec<String>) = (table.get(0), table.get(1));
        assert_eq!(documented(&format!("{name}\n"), 1), columns, "{name} in docs/database.md");
    }
}

#[tokio::test]
async fn sqlite_has_the_tables_and_columns_of_postgresql() {
    let database = PostgresFixture::new().await;
    let query = "SELECT table_name::text, column_name::text FROM information_schema.columns \
                 WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'";
    let rows = database.client.query(query, &[]).await.unwrap();
    let postgres: BTreeSet<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let file = SqliteFixture::new().await;
    let query = "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c \
                 WHERE t.type IN ('table', 'view') AND t.name NOT LIKE 'sqlite%' AND t.name <> '_sqlx_migrations' \
                 AND NOT (t.type = 'view' AND c.name = 'ts_ms')";
    let rows = sqlx::query(query).fetch_all(&mut file.connect().await).await.unwrap();
    let sqlite: BTreeSet<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(sqlite, postgres);
}
