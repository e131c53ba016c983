//! Shared by the tests of `odograph check`: they run it and read its report.

use std::path::Path;
use std::process::{Command, Output};

use odograph_testkit::RedisServer;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::ODOGRAPH;

/// Nothing listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// A directory outside /tmp, which may be in memory.
pub fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn command(program: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ODOGRAPH_") || name.ends_with("_URL")) {
        command.env_remove(name);
    }
    command.env("ODOGRAPH_ADMIN_LISTEN", NOWHERE).envs(variables.iter().copied());
    command
}

pub fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(ODOGRAPH.path(), variables).arg("check").args(arguments).output().unwrap()
}

/// The report of `--json`.
pub struct Report {
    pub code: Option<i32>,
    pub json: Json,
    pub text: String,
}

impl Report {
    pub fn of(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or_else(|e| {
            panic!("{e}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        });
        Self { code: output.status.code(), json, text }
    }

    pub fn new(variables: &[(&str, &str)]) -> Self {
        Self::of(&run(&["--json"], variables))
    }

    pub fn findings(&self) -> &Vec<Json> {
        self.json["findings"].as_array().unwrap()
    }

    pub fn finding(&self, name: &str) -> &Json {
        let finding = self.findings().iter().find(|finding| finding["name"] == name);
        finding.unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    pub fn verdict(&self, name: &str) -> &str {
        self.finding(name)["verdict"].as_str().unwrap()
    }

    pub fn wrong(&self) -> Vec<&str> {
        let wrong = self.findings().iter().filter(|finding| finding["verdict"] == "wrong");
        wrong.map(|finding| finding["name"].as_str().unwrap()).collect()
    }

    /// Asserts that a finding is wrong, contains a text, has a remedy with another text, and sets the exit code.
    pub fn names(&self, name: &str, found: &str, remedy: &str) {
        let finding = self.finding(name);
        assert_eq!(finding["verdict"], "wrong", "{finding}");
        assert!(finding["found"].as_str().unwrap().contains(found), "{finding}");
        assert!(finding["remedy"].as_str().unwrap().contains(remedy), "{finding}");
        assert_eq!((self.code, &self.json["sound"]), (Some(1), &Json::Bool(false)));
    }
}

/// The setting of the data directory: a report needs at least this one.
pub fn at(directory: &TempDir) -> (&'static str, &str) {
    ("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())
}

pub const SMALL: (&str, &str) = ("ODOGRAPH_JOURNAL_MAX_SIZE", "64MiB");

/// The findings that are wrong for every installation on this machine, such as a directory in a container's own layer.
pub fn wrong_here(directory: &Path) -> Vec<&'static str> {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(directory).output().unwrap();
    match String::from_utf8(output.stdout).unwrap().trim() {
        "tmpfs" | "ramfs" | "overlayfs" => vec!["file-system"],
        _ => Vec::new(),
    }
}

pub async fn redis_asks(redis: &RedisServer, command: &mut redis::Cmd) {
    let mut connection = redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    command.exec_async(&mut connection).await.unwrap();
}

pub fn flag() -> [&'static str; 14] {
    [
        "v",
        "1",
        "seq",
        "1",
        "op",
        "insert",
        "flag_id",
        "6f1c1c0e-4a53-4bb4-9a3e-3f4c9d0f7b11",
        "old",
        "",
        "new",
        r#"{"imei":"356307042441013","ts_from":"2026-05-02T07:41:00.000Z","ts_to":"2026-05-02T07:41:30.000Z","faulty":true,"reason":"x"}"#,
        "x",
        "y",
    ]
}
