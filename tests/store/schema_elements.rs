//! The element dictionary in the code, in both databases, and in the migration files.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use odograph::store::{ColumnType, ELEMENTS, column_of};
use odograph_testkit::{PostgresFixture, SqliteFixture, StoreFixture};
use sqlx::Row as _;
use teltonika_codecs::dictionary::{self, ByteOrder, ElementInfo, ValueKind};

/// A row of `io_elements` as text, so that it compares across databases.
type Line = Vec<Option<String>>;

const COLUMNS: [&str; 13] = [
    "id",
    "name",
    "label",
    "kind",
    "width",
    "unit",
    "multiplier",
    "column_name",
    "column_multiplier",
    "description",
    "minimum",
    "maximum",
    "faults",
];
const NUMBERS: [&str; 6] = ["id", "width", "multiplier", "column_multiplier", "minimum", "maximum"];

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
                element.range.map(|(least, _)| least.to_string()),
                element.range.map(|(_, most)| most.to_string()),
                faults(element),
            ]
        })
        .collect()
}

/// Error codes and their names as JSON.
fn faults(element: &ElementInfo) -> Option<String> {
    let mut sorted = element.faults.to_vec();
    sorted.sort_unstable();
    let faults: Vec<_> = sorted.iter().map(|(raw, name)| format!("\"{raw}\": \"{name}\"")).collect();
    (!faults.is_empty()).then(|| format!("{{{}}}", faults.join(", ")))
}

#[track_caller]
fn compare(found: &[Line]) {
    let expected = expected();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

fn kind(element: &ElementInfo) -> &'static str {
    match element.kind {
        ValueKind::Unsigned => "unsigned",
        ValueKind::Signed => "signed",
        ValueKind::Id(ByteOrder::First) => "id",
        ValueKind::Id(ByteOrder::Last) => "id_reversed",
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
                Some(number) if NUMBERS.contains(&column) => number.clone(),
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
    let head = "-- What values of I/O elements say: ranges, error codes, identifiers, and the views that tell them. Made from the\n\
                -- dictionary of the codec crate by tests/store/schema_elements.rs, which also compares. A later dictionary comes as a\n\
                -- migration of its own.\n\
                --\n\
                -- `minimum`, `maximum` and `faults` are about the raw value: outside of the range it is no measurement, and a fault is\n\
                -- an error of the sensor. A signed element in another width than the vendor's is [value, width] in io.\n";
    let table = "ALTER TABLE io_elements
    ADD COLUMN IF NOT EXISTS minimum numeric,
    ADD COLUMN IF NOT EXISTS maximum numeric,
    ADD COLUMN IF NOT EXISTS faults jsonb;
";
    let tail = format!(
        "{}
DO $$
BEGIN
    IF (SELECT count(*) FROM io_elements WHERE minimum IS NOT NULL) < {ranges} THEN
        RAISE EXCEPTION 'io_elements is not odograph''s: it lacks ranges';
    END IF;
END $$;
",
        include_str!("named_values/postgres.sql"),
        ranges = dictionary::all().iter().filter(|element| element.range.is_some()).count()
    );
    generated(head, table, &tail)
}

fn sqlite_file() -> String {
    let head = "-- What values of I/O elements say, see db-init/0010_element_meaning.sql. Made by tests/store/schema_elements.rs.\n";
    let table = "ALTER TABLE io_elements ADD COLUMN minimum REAL;
ALTER TABLE io_elements ADD COLUMN maximum REAL;
ALTER TABLE io_elements ADD COLUMN faults TEXT;
";
    let elements = include_str!("named_values/sqlite.sql");
    // Everything of the earlier views but the elements.
    let earlier = include_str!("../../db-init/sqlite/0005_views.sql");
    let views: String = ["positions_named", "latest_named"]
        .into_iter()
        .zip(["positions", "latest_positions"])
        .map(|(view, table)| {
            let from = earlier.find(&format!("CREATE VIEW {view} AS")).unwrap();
            let columns = &earlier[from..from + earlier[from..].find("    (SELECT json_group_object").unwrap()];
            format!("\nDROP VIEW {view};\n{columns}{elements}FROM {table} AS p;\n")
        })
        .collect();
    generated(head, table, &views)
}

/// With `ODOGRAPH_WRITE_ELEMENTS=1` it writes the files and compares nothing.
#[test]
fn the_files_are_made_from_the_dictionary() {
    for (file, text) in
        [("0010_element_meaning.sql", postgres_file()), ("sqlite/0009_element_meaning.sql", sqlite_file())]
    {
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
    compare(&found);
}

#[tokio::test]
async fn the_table_of_sqlite_is_the_dictionary() {
    let database = SqliteFixture::new().await;
    let list: Vec<_> = COLUMNS
        .iter()
        .map(|name| match *name {
            "multiplier" | "column_multiplier" => format!("printf('%g', {name})"),
            "minimum" | "maximum" => format!("CASE WHEN {name} IS NOT NULL THEN printf('%.0f', {name}) END"),
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
    compare(&found);
}
