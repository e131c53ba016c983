//! `odograph journal inspect` and `dump`, on the sample journal.

use crate::ODOGRAPH;

/// The sample journal of format version 1. A test of `odograph-journal` compares it with the format page.
const SAMPLE: &str = "fixtures/journal-v1";

fn odograph(arguments: &[&str]) -> (String, String, bool) {
    let output = ODOGRAPH.run(arguments, &[]);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

#[test]
fn inspect_shows_the_sample_and_names_damage() {
    let (printed, _, well) = odograph(&["journal", "inspect", "--groups", "--directory", SAMPLE]);
    assert!(well);
    for wanted in [
        "journal 73616d70-6c65-206f-6620-7631202e2e2e",
        "segment 1: 4 KiB, 3 groups, positions 0 to 226, 2 frames, 1 undecodable, 0 messages, received 2019-06-10T10:05:37.000Z to \
         2019-06-10T11:36:32.123Z",
        "group 0 at byte 512: 0 entries, positions 0 to 0, released 0, tag 0000000000001111",
        "released to 98, 0 damaged places",
    ] {
        assert!(printed.contains(wanted), "{wanted:?} in\n{printed}");
    }

    let (printed, _, well) = odograph(&["journal", "inspect", "--groups", "--directory", "fixtures/journal-v2"]);
    assert!(well && printed.contains("positions 0 to 98, released 0, tag 0000111100000000"), "{printed}");

    let guard = tempfile::tempdir().unwrap();
    let directory = guard.path();
    for entry in std::fs::read_dir(SAMPLE).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
    }
    let name = directory.join("00000000000000000001.seg");
    let mut content = std::fs::read(&name).unwrap();
    content[1024 + 90] ^= 1;
    std::fs::write(&name, content).unwrap();
    let (printed, said, well) = odograph(&["journal", "inspect", "--directory", directory.to_str().unwrap()]);
    assert!(
        !well && printed.contains("segment 1: DAMAGED at byte 1024") && said.contains("1 damaged place"),
        "{printed}{said}"
    );
}

#[test]
fn dump_prints_what_decode_takes() {
    let (all, _, well) = odograph(&["journal", "dump", "--directory", SAMPLE]);
    assert!(well);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 4);
    let (decoded, _, _) = odograph(&[&["decode"], lines.as_slice()].concat());
    let kinds: Vec<_> = decoded.lines().map(|line| &line[..20.min(line.len())]).collect();
    assert_eq!(
        kinds,
        [r#"{"kind":"avl","codec"#, r#"{"kind":"avl","codec"#, r#"{"kind":"error","rea"#, r#"{"kind":"message","c"#]
    );
    assert!(decoded.contains("count_mismatch"));

    let part = ["--from", "2019-06-10T10:05:38Z", "--to", "2019-06-10T11:00:00Z", "--imei", "000000000000042"];
    let (some, _, well) = odograph(&[&["journal", "dump", "--directory", SAMPLE], part.as_slice()].concat());
    assert!(well);
    assert_eq!(some.lines().collect::<Vec<_>>(), [lines[2]]);
}

#[test]
fn a_directory_without_a_journal_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["inspect", "dump"] {
        let (printed, said, well) = odograph(&["journal", command, "--directory", directory.path().to_str().unwrap()]);
        assert!(!well && printed.is_empty() && said.contains("`identity`"), "{said}");
    }
    let missing = directory.path().join("nowhere");
    let (_, said, well) = odograph(&["journal", "inspect", "--directory", missing.to_str().unwrap()]);
    assert!(!well && said.contains("no journal in"), "{said}");
}
