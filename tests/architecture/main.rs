//! The rules of the house over its own source: no circle between modules, arrows in one direction, facades that define
//! nothing, no ambiguous name, no new match on the backend. Each rule is also run on a small tree that breaks it.

#![expect(clippy::unwrap_used, reason = "a step that fails here is a test that fails")]

mod rules;
mod source;

use std::fs;
use std::path::Path;

use rules::{Direction, Private};

/// The crates of the workspace, with the directory of their source.
const CRATES: [&str; 7] =
    ["src", "journal/src", "fleet/src", "codecs/src", "sim/src", "sim/faulty-disk/src", "testkit/src"];

fn read(directory: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let (mut files, mut directories) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push((relative(&path, &root), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "{directory} holds source");
    files
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}

fn borrowed(files: &[(String, String)]) -> Vec<source::File<'_>> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

/// Runs a rule on every crate.
fn all_crates(rule: impl Fn(&[source::File<'_>]) -> Vec<String>) -> Vec<String> {
    let of_crate = |directory: &&str| {
        let files = read(directory);
        rule(&borrowed(&files)).into_iter().map(|broken| format!("{directory}: {broken}")).collect::<Vec<_>>()
    };
    CRATES.iter().flat_map(of_crate).collect()
}

#[track_caller]
fn holds(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// The layers of the service. The command line is the top: it may use everything.
const DIRECTIONS: &[Direction] = &[
    Direction { from: "ingest", never: &["store::postgres", "store::sqlite"] },
    Direction { from: "ingest::gateway", never: &["store"] },
    Direction {
        from: "ingest::drain",
        never: &["store::database", "store::commit", "store::flags", "store::statements"],
    },
    Direction { from: "flags", never: &["store::postgres", "store::sqlite", "ingest"] },
    Direction { from: "store", never: &["ingest", "flags", "replay", "check", "retention", "health", "metrics"] },
    Direction {
        from: "store::model",
        never: &["store::commit", "store::flags", "store::postgres", "store::sqlite", "store::database"],
    },
    Direction { from: "store::commit", never: &["store::postgres", "store::sqlite", "store::database"] },
    Direction { from: "store::flags", never: &["store::postgres", "store::sqlite", "store::database"] },
    Direction { from: "store::postgres", never: &["store::sqlite", "store::database"] },
    Direction { from: "store::sqlite", never: &["store::postgres", "store::database"] },
];

const PRIVATE: &[Private] = &[
    Private { module: "config", only: &["app", "cli", "config", "check"] },
    Private { module: "app", only: &["app", "cli"] },
    Private { module: "cli", only: &["cli"] },
];

/// Facades that still define something. Remove a line when its facade only maps.
const KNOWN_FACADES: &[&str] = &[
    // The README of the crate, compiled as documentation.
    "codecs/src: lib.rs defines struct Readme",
];

fn unknown(found: Vec<String>, known: impl Fn(&str) -> bool) -> Vec<String> {
    found.into_iter().filter(|broken| !known(broken)).collect()
}

#[test]
fn no_modules_use_each_other() {
    holds(&all_crates(rules::circles));
}

#[test]
fn arrows_run_from_the_command_line_down_to_the_codecs() {
    let files = read("src");
    let found = rules::wrong_directions(&borrowed(&files), DIRECTIONS, PRIVATE);
    holds(&found);
}

#[test]
fn crates_below_the_service_do_not_know_it() {
    let ours: [(&str, &[&str]); 3] = [
        ("codecs/src", &["odograph", "odograph_journal", "odograph_fleet", "odograph_testkit", "odograph_sim"]),
        ("journal/src", &["odograph", "odograph_fleet", "odograph_testkit", "odograph_sim"]),
        ("fleet/src", &["odograph", "odograph_journal", "odograph_testkit", "odograph_sim"]),
    ];
    for (directory, never) in ours {
        let files = read(directory);
        holds(&rules::wrong_directions(&borrowed(&files), &[Direction { from: "", never }], &[]));
    }
}

#[test]
fn facades_define_nothing() {
    let found = all_crates(rules::facades_that_define);
    holds(&unknown(found, |definition| KNOWN_FACADES.iter().any(|facade| definition.starts_with(facade))));
}

#[test]
fn no_file_is_longer_than_a_type_with_one_job_needs() {
    let too_long = |files: &[source::File<'_>]| {
        let lines = files.iter().map(|(path, text)| (path, text.lines().count()));
        lines.filter(|(_, lines)| *lines > LINES_MAX).map(|(path, lines)| format!("{path}: {lines} lines")).collect()
    };
    holds(&unknown(all_crates(too_long), |file| KNOWN_LONG.iter().any(|known| file.starts_with(known))));
}

#[test]
fn no_type_name_is_ambiguous() {
    let found = all_crates(rules::ambiguous_names);
    holds(&found);
}

/// See CONTRIBUTING.md.
const LINES_MAX: usize = 400;
/// One file matches on the backend, so it has each of the store's faces.
const KNOWN_LONG: &[&str] = &["src: store/database.rs"];

/// Files that match on the backend: the one that decides, and the URL itself.
const KNOWN_MATCHES: &[&str] = &["store/database.rs", "store/url.rs"];

#[test]
fn no_other_file_matches_on_the_backend() {
    let files = read("src");
    let found = rules::matches_on_the_backend(&borrowed(&files));
    holds(&unknown(found, |file| KNOWN_MATCHES.iter().any(|known| file.starts_with(known))));
}

#[test]
fn a_circle_is_found_and_told_in_words() {
    let files = [
        ("lib.rs", "pub mod a;\nmod b;\nmod c;"),
        ("a/mod.rs", "mod inner;\npub use inner::Inner;"),
        ("a/inner.rs", "use crate::b::B;\npub struct Inner(B);"),
        ("b.rs", "// use crate::c::C;\nuse super::c::{self, C};\npub struct B(C);"),
        ("c.rs", "pub struct C;\nfn f(_: crate::a::Inner) { let _ = \"use crate::b::B\"; }"),
    ];
    assert_eq!(rules::circles(&files), ["a uses a::inner uses b uses c uses a"]);
    let in_test = "pub struct C;\n#[cfg(test)]\nmod tests {\n    use crate::a::Inner;\n}\n";
    let files = files.map(|(path, text)| (path, if path == "c.rs" { in_test } else { text }));
    holds(&rules::circles(&files));
}

#[test]
fn a_child_that_uses_its_facade_is_a_circle() {
    let files = [("a/mod.rs", "mod b;\npub use b::B;\npub struct A;"), ("a/b.rs", "use super::A;\npub struct B(A);")];
    assert_eq!(rules::circles(&files), ["a uses a::b uses a"]);
}

#[test]
fn an_arrow_against_the_direction_is_found_behind_a_facade() {
    let files = [
        ("store/mod.rs", "mod postgres;\nmod model;\npub use model::Row;\npub use postgres::{\n    PostgresStore,\n};"),
        ("store/postgres.rs", "pub struct PostgresStore;"),
        ("store/model.rs", "pub struct Row;"),
        ("ingest/drain.rs", "use crate::store::{PostgresStore, Row};"),
        ("flags.rs", "use crate::config::Settings;"),
        ("check.rs", "use crate::config::Settings;"),
        ("config.rs", "pub struct Settings;"),
    ];
    let found = rules::wrong_directions(&files, DIRECTIONS, PRIVATE);
    assert_eq!(found, ["flags must not use config::Settings", "ingest::drain must not use store::PostgresStore"]);
    let never = &["odograph"];
    let fleet = [("lib.rs", "use odograph::store::Row;\nuse odograph_fleet_extra::X;")];
    let found = rules::wrong_directions(&fleet, &[Direction { from: "", never }], &[]);
    assert_eq!(found, ["the crate's root must not use odograph::store::Row"]);
}

#[test]
fn a_definition_in_a_facade_is_found() {
    let text = "mod b;\npub use b::B;\nmacro_rules! m {\n    () => { struct Inside; };\n}\npub(crate) async fn f() {}\n\
                pub const N: u8 = 1;\n#[cfg(test)]\nmod tests {\nfn t() {}\n}\n";
    let files = [("a/mod.rs", text), ("a/b.rs", "pub struct B;")];
    assert_eq!(rules::facades_that_define(&files), ["a/mod.rs defines fn f", "a/mod.rs defines const N"]);
}

#[test]
fn an_ambiguous_name_is_found() {
    let homes = [("a.rs", "pub struct Step;"), ("b.rs", "pub enum Step {}")];
    let with = |path, text| [homes[0], homes[1], (path, text)];
    let unqualified = with("c.rs", "use crate::a::Step;");
    assert_eq!(rules::ambiguous_names(&unqualified), ["c imports Step without its module: a and b define one"]);
    let exported = with("c.rs", "pub use crate::a::Step;\npub use crate::b::Step as Other;");
    assert_eq!(rules::ambiguous_names(&exported), ["Step is exported twice: a and b define one"]);
    holds(&rules::ambiguous_names(&with("c.rs", "use crate::{a, b};\nfn f(_: a::Step, _: b::Step) {}")));
    holds(&rules::ambiguous_names(&with("c.rs", "use crate::a::Step as OtherStep;")));
}

#[test]
fn a_match_on_the_backend_is_found() {
    let files = [
        ("a.rs", "fn f(url: &DatabaseUrl) -> bool { matches!(url, DatabaseUrl::Sqlite(_)) }"),
        ("b.rs", "impl Connect for DatabaseUrl { fn g(&self) { let Self::Postgres(_) = self else { return }; } }"),
        ("c.rs", "#[cfg(test)]\nmod tests {\n    fn f() { let _ = DatabaseUrl::Sqlite(path()); }\n}\n"),
    ];
    assert_eq!(rules::matches_on_the_backend(&files), ["a.rs", "b.rs"]);
}
