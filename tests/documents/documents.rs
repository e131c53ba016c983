//! What the documentation names is there: the tests of docs/guarantees.md, and the files that pages refer to.

use std::fs;
use std::path::{Path, PathBuf};

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

#[test]
fn every_guarantee_names_a_test_that_exists() {
    let folders = ["tests", "journal/tests", "sim"];
    let files = folders.iter().flat_map(|folder| files(folder, "rs"));
    let tests: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    let page = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| guarantee"));
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
    let mut pages = files("docs", "md");
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut followed = 0;
    for page in pages {
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

/// As a heading is referred to.
fn anchor(line: &str) -> String {
    let Some(title) = line.strip_prefix('#') else { return String::new() };
    let title = title.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
