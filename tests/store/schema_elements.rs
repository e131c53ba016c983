//! The element dictionary in the code, in both databases, and in the migration files.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use odograph::store::{ColumnType, ELEMENTS, column_of};
use odograph_testkit::{PostgresFixture, SqliteFixture, StoreFixture};
use sqlx::Row as _;
use teltonika_codecs::dictionary::{self, ElementInfo, ValueKind};

/// A row of `io_elements` as text, so that it compares across databases.
type Line = Vec<Option<String>>;

const COLUMNS: [&str; 10] =
    ["id", "name", "label", "kind", "width", "unit", "multiplier", "column_name", "column_multiplier", "description"];

/// Every element as the dictionary and the columns describe it.
fn expected() -> Vec<Line> {
    let mut names: HashMap<_, u32> = HashMap::new();
    for element in dictionary::all() {
        *names.entry(element.name).or_default() += 1;
    }
    dictionary::all()
        .iter()
        .map(|element| {
            let shared = names[element.name] > 1;
            let label = if shared { format!("{} ({})", element.name, element.id) } else { element.name.to_owned() };
            let column = column_of(element.id).map(|at| ELEMENTS[at]);
            // The column of a dilution of precision is scaled already.
            let column_multiplier = column.map(|column| match column.column_type {
                ColumnType::RealTenths => "1".to_owned(),
                _ => element.multiplier().to_string(),
            });
            vec![
                Some(element.id.to_string()),
                Some(element.name.to_owned()),
                Some(label),
                Some(kind(element).to_owned()),
                element.vendor_width.map(|width| width.to_string()),
                element.unit.map(str::to_owned),
                matches!(element.kind, ValueKind::Unsigned | ValueKind::Signed)
                    .then(|| element.multiplier().to_string()),
                column.map(|column| column.name.to_owned()),
                column_multiplier,
                Some(element.description.to_owned()),
            ]
        })
        .collect()
}

fn kind(element: &ElementInfo) -> &'static str {
    match element.kind {
        ValueKind::Unsigned => "unsigned",
        ValueKind::Signed => "signed",
        ValueKind::Text => "text",
        ValueKind::Bytes => "bytes",
    }
}

/// The file for one database, generated from the code.
fn generated(head: &str, table: &str, tail: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut sql = format!("{head}\n{table}\nINSERT INTO io_elements\n    ({})\nVALUES\n", COLUMNS.join(", "));
    let lines = expected();
    for (at, line) in lines.iter().enumerate() {
        let values: Vec<_> = line
            .iter()
            .zip(COLUMNS)
            .map(|(value, column)| match value {
                None => "NULL".to_owned(),
                Some(number) if ["id", "width", "multiplier", "column_multiplier"].contains(&column) => number.clone(),
                Some(text) => quoted(text),
            })
            .collect();
        let end = if at + 1 == lines.len() { "" } else { "," };
        writeln!(sql, "    ({}){end}", values.join(", ")).unwrap();
    }
    let replaced: Vec<_> = COLUMNS.iter().skip(1).map(|name| format!("    {name} = excluded.{name}")).collect();
    write!(sql, "ON CONFLICT (id) DO UPDATE SET\n{};\n{tail}", replaced.join(",\n")).unwrap();
    sql
}

fn postgres_file() -> String {
    let head = "-- The I/O elements of FMB920 and FMB003: names, units and scales. Made from the dictionary of the codec crate by\n\
                -- tests/schema_elements.rs, which also compares. A later dictionary comes as a migration of its own.\n\
                --\n\
                -- `multiplier` and `unit` are those of the raw value, which is what stands in io; `column_multiplier` is that of the\n\
                -- typed column's value. `label` is the name, with the id behind it where two elements share a name.\n";
    let table = "CREATE TABLE IF NOT EXISTS io_elements (
    id                integer NOT NULL,
    name              text    NOT NULL,
    label             text    NOT NULL,
    kind              text    NOT NULL,
    width             integer,
    unit              text,
    multiplier        numeric,
    column_name       text,
    column_multiplier numeric,
    description       text    NOT NULL,
    CONSTRAINT io_elements_pkey PRIMARY KEY (id),
    CONSTRAINT io_elements_label_key UNIQUE (label),
    CONSTRAINT io_elements_column_name_key UNIQUE (column_name)
);
";
    let tail = format!(
        "
DO $$
DECLARE
    lacking text[];
BEGIN
    IF (SELECT count(*) FROM io_elements) < {all} THEN
        RAISE EXCEPTION 'io_elements has % elements, not {all}', (SELECT count(*) FROM io_elements);
    END IF;
    SELECT array_agg(column_name) INTO lacking FROM io_elements
    WHERE column_name NOT IN (
        SELECT attname FROM pg_attribute
        WHERE attrelid = 'positions'::regclass AND attnum > 0 AND NOT attisdropped);
    IF lacking IS NOT NULL THEN
        RAISE EXCEPTION 'positions lacks columns of io_elements: %', array_to_string(lacking, ', ');
    END IF;
END $$;
",
        all = dictionary::all().len()
    );
    generated(head, table, &tail)
}

fn sqlite_file() -> String {
    let head = "-- The I/O elements, see db-init/0005_elements.sql. Made by tests/schema_elements.rs.\n";
    let table = "CREATE TABLE io_elements (
    id                INTEGER PRIMARY KEY,
    name              TEXT NOT NULL,
    label             TEXT NOT NULL UNIQUE,
    kind              TEXT NOT NULL,
    width             INTEGER,
    unit              TEXT,
    multiplier        REAL,
    column_name       TEXT UNIQUE,
    column_multiplier REAL,
    description       TEXT NOT NULL
) STRICT;
";
    generated(head, table, "")
}

/// With `ODOGRAPH_WRITE_ELEMENTS=1` it writes the files and compares nothing.
#[test]
fn the_files_are_made_from_the_dictionary() {
    for (file, text) in [("0005_elements.sql", postgres_file()), ("sqlite/0004_elements.sql", sqlite_file())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("db-init").join(file);
        if std::env::var_os("ODOGRAPH_WRITE_ELEMENTS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap() == text, "{file} does not match the dictionary");
    }
}

#[tokio::test]
async fn the_table_of_postgresql_is_the_dictionary() {
    let database = PostgresFixture::new().await;
    let list: Vec<_> = COLUMNS.iter().map(|name| format!("{name}::text")).collect();
    let query = format!("SELECT {} FROM io_elements AS e ORDER BY e.id", list.join(", "));
    let rows = database.client.query(&query, &[]).await.unwrap();
    let found: Vec<Line> = rows.iter().map(|row| (0..COLUMNS.len()).map(|at| row.get(at)).collect()).collect();
    assert_eq!(found, expected());
}

#[tokio::test]
async fn the_table_of_sqlite_is_the_dictionary() {
    let database = SqliteFixture::new().await;
    let list: Vec<_> = COLUMNS
        .iter()
        .map(|name| match *name {
            "multiplier" | "column_multiplier" => format!("printf('%g', {name})"),
            name => format!("CAST({name} AS TEXT)"),
        })
        .collect();
    let query = format!(
        "SELECT {}, multiplier IS NULL, column_multiplier IS NULL FROM io_elements ORDER BY id",
        list.join(", ")
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&mut database.connect().await).await.unwrap();
    let found: Vec<Line> = rows
        .iter()
        .map(|row| {
            let mut line: Line = (0..COLUMNS.len()).map(|at| row.get(at)).collect();
            // printf gives text for NULL too.
            for (at, null) in [(6, COLUMNS.len()), (8, COLUMNS.len() + 1)] {
                if row.get::<bool, _>(null) {
                    line[at] = None;
                }
            }
            line
        })
        .collect();
    assert_eq!(found, expected());
}
