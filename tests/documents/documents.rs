//! What the pages name exists: tests, files, headings, settings, and words of the glossary.

use odograph::health::Reason;
use odograph::ingest::gateway::CloseReason;
use std::fs;
use std::path::{Path, PathBuf};

use odograph::config::keys;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    found
}

/// Every page that a reader may start from.
fn pages() -> Vec<PathBuf> {
    let mut pages = files("docs", "md");
    pages.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "fixtures/README.md"].map(|name| root().join(name)));
    pages
}

/// What stands in backticks on one line of the text, without its code blocks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("\n```").step_by(2);
    prose.flat_map(str::lines).flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_guarantee_names_a_test_that_exists() {
    let folders = ["tests", "journal/tests", "sim"];
    let files = folders.iter().flat_map(|folder| files(folder, "rs"));
    let tests: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    let page = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let is_heading = |line: &&str| line.starts_with("| guarantee") || line.starts_with("| who");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !is_heading(line));
    let mut count = 0;
    for row in rows {
        let shown_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let quoted = shown_by.split('`').skip(1).step_by(2);
        let tested: Vec<&str> = quoted.filter(|name| name.contains('_') && !name.starts_with("ODOGRAPH_")).collect();
        assert!(!tested.is_empty(), "nothing shows this: {row}");
        for name in tested {
            let defined = [format!("fn {name}("), format!("    {name}\n"), format!("    {name},\n")];
            assert!(defined.iter().any(|form| tests.contains(form)), "there is no test {name}");
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut followed = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !heading.is_empty() {
                let headings = fs::read_to_string(target).unwrap();
                assert!(headings.lines().any(|line| anchor(line) == heading), "{}: {link}", page.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

#[test]
fn every_file_that_a_page_names_exists() {
    let top =
        ["benches/", "codecs/", "db-init/", "docs/", "fixtures/", "fleet/", "journal/", "scripts/", "sim/", "src/"];
    let mut named = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for path in
            quoted(&text).filter(|name| top.iter().chain(&["testkit/", "tests/"]).any(|top| name.starts_with(top)))
        {
            // A command, or several names at once.
            if path.contains([' ', '{', '*']) {
                continue;
            }
            assert!(root().join(path).exists(), "{} names {path}", page.display());
            named += 1;
        }
    }
    assert!(named > 80, "{named}");
}

#[test]
fn the_page_of_settings_has_each_with_its_default() {
    let page = fs::read_to_string(root().join("docs/settings.md")).unwrap();
    for key in keys::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", key.variable)));
        let row = row.unwrap_or_else(|| panic!("docs/settings.md lacks {}", key.variable));
        let default = row.split('|').nth(2).unwrap();
        assert!(key.default.is_none_or(|value| default.contains(&format!("`{value}`"))), "{row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, keys::ALL.len(), "rows of settings that do not exist");
}

#[test]
fn the_glossary_is_in_order_and_the_code_uses_its_words() {
    let folders = ["src", "codecs/src", "journal/src", "fleet/src", "sim", "testkit", "tests", "db-init"];
    let sources = folders.iter().flat_map(|folder| [files(folder, "rs"), files(folder, "sql")]).flatten();
    let code: String = sources.map(|file| words(&fs::read_to_string(file).unwrap())).collect();
    let page = fs::read_to_string(root().join("docs/glossary.md")).unwrap();
    let terms: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| **")?.split_once("**")).collect();
    let terms: Vec<_> = terms.into_iter().map(|(term, _)| term.to_lowercase()).collect();
    assert!(terms.is_sorted(), "{terms:?}");
    let unused: Vec<_> = terms.iter().filter(|term| !code.contains(&words(term))).collect();
    assert!(unused.is_empty() && terms.len() > 50, "words that the code does not use: {unused:?}");
}

/// A text as words in lower case: `BatchSpan` and `batch_span` are `batch span`.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        if before.is_lowercase() && c.is_uppercase() {
            words.push(' ');
        }
        words.extend(if matches!(c, '_' | '-') { ' ' } else { c }.to_lowercase());
        before = c;
    }
    words
}

/// As a heading is referred to.
fn anchor(line: &str) -> String {
    let Some(title) = line.strip_prefix('#') else { return String::new() };
    let title = title.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_reason_of_readyz_and_of_a_closed_session_has_its_row() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let named = |heading: &str| -> Vec<String> {
        let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
        let firsts = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
        firsts.flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`').to_owned())).collect()
    };
    let mut reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    let mut rows = named("/readyz");
    reasons.sort_unstable();
    rows.sort_unstable();
    assert_eq!(rows, reasons);
    let section = page.split("\n## ").find(|section| section.starts_with("Why sessions are closed")).unwrap();
    let missing: Vec<_> = CloseReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .filter(|name| !section.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
