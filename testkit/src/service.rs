//! A service: in this process, or as the real binary that can be killed.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use odograph::app::{self, StartOptions};
use odograph::config::{Lookup, Settings};
use odograph::metrics::Counts;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Most tests send records of a fixed day, and the vendor's examples are from 2007 to 2020.
const ANY_TIME: [(&str, &str); 2] =
    [("ODOGRAPH_TIME_WINDOW_PAST", "20000d"), ("ODOGRAPH_TIME_WINDOW_FUTURE", "20000d")];

/// Whether a tracker is answered after the journal's sync or after the commit.
pub const AFTER_COMMIT: (&str, &str) = ("ODOGRAPH_ACK_AFTER", "commit");

/// A service in this process, with a data directory of its own.
pub struct Service {
    running: app::Service,
    _directory: tempfile::TempDir,
}

impl std::ops::Deref for Service {
    type Target = app::Service;

    fn deref(&self) -> &app::Service {
        &self.running
    }
}

impl Service {
    /// Waits until everything that was taken is in the database.
    pub async fn settled(&self) {
        super::eventually("everything to be stored", async || {
            (self.running.registry.tally().read().waiting == 0).then_some(())
        })
        .await;
    }

    pub async fn failed(&mut self) -> &'static str {
        self.running.failed().await
    }

    pub async fn stop(self) -> Counts {
        self.running.stop().await
    }
}

/// Starts a service in this process, on free ports.
pub async fn start(database_url: &str, more: &[(&str, &str)]) -> Service {
    let directory = tempfile::tempdir().unwrap();
    let own = [&[("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())], more].concat();
    let settings = settings(database_url, &own);
    let running = app::start(&settings, StartOptions::default()).await;
    let running = running.unwrap_or_else(|wrong| panic!("{wrong}: {:?}", std::error::Error::source(&wrong)));
    Service { running, _directory: directory }
}

fn settings(database_url: &str, more: &[(&str, &str)]) -> Settings {
    let mut variables = vec![
        ("DATABASE_URL", database_url),
        ("ODOGRAPH_LISTEN", "127.0.0.1:0"),
        ("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0"),
        ("ODOGRAPH_SHUTDOWN_GRACE", "5s"),
    ];
    variables.extend(ANY_TIME);
    variables.extend(more);
    Settings::load(&Lookup::from_variables(variables)).unwrap()
}

/// Asks the admin listener; gives status and body.
pub async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body =
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunk(body) } else { body.into() };
    (status, body)
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            break;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// One value of `/metrics`; `series` is the name with its labels.
pub async fn metric(admin: SocketAddr, series: &str) -> f64 {
    let (status, text) = get(admin, "/metrics").await;
    assert_eq!(status, 200);
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {series} in\n{text}"))
        .parse()
        .unwrap()
}

/// A counter of `/metrics`.
pub async fn count(admin: SocketAddr, series: &str) -> u64 {
    format!("{:.0}", metric(admin, series).await).parse().unwrap()
}

/// `/readyz`: ready, and the reasons.
pub async fn readiness(admin: SocketAddr) -> (u16, bool, Vec<String>) {
    let (status, body) = get(admin, "/readyz").await;
    let body: Json = serde_json::from_str(&body).unwrap();
    let reasons = body["reasons"].as_array().unwrap().iter().map(|r| r.as_str().unwrap().to_owned()).collect();
    (status, body["ready"].as_bool().unwrap(), reasons)
}

/// Any command of the real binary, with the same time window as the services have.
pub fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_odograph"));
    command.args(arguments).env_remove("REDIS_URL").envs(ANY_TIME).envs(variables.iter().copied());
    command
}

/// Runs it.
pub fn odograph(arguments: &[&str], variables: &[(&str, &str)]) -> std::process::Output {
    command(arguments, variables).stdin(Stdio::null()).output().unwrap()
}

/// The real binary, running `serve`.
pub struct Process {
    child: Child,
    pub trackers: SocketAddr,
    pub admin: SocketAddr,
    logs: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
    _directory: tempfile::TempDir,
}

impl Process {
    /// Starts the binary and waits until it says where it listens. Its data directory is its own, unless `more` names one.
    pub fn start(database_url: &str, listen: &str, more: &[(&str, &str)]) -> Self {
        Self::start_with(&[], database_url, listen, more)
    }

    /// The same, with arguments.
    pub fn start_with(arguments: &[&str], database_url: &str, listen: &str, more: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_odograph"))
            .arg("serve")
            .args(arguments)
            .env("ODOGRAPH_DATA_DIR", directory.path())
            // Tests share one Redis, and the stream's name is the same for all that do not ask for flags.
            .env_remove("REDIS_URL")
            .env("DATABASE_URL", database_url)
            .env("ODOGRAPH_LISTEN", listen)
            .env("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0")
            .env("ODOGRAPH_LOG_FORMAT", "json")
            .envs(ANY_TIME)
            .envs(more.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let logs = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let up = loop {
            let line =
                lines.next().unwrap_or_else(|| panic!("the service ended at its start: {:?}", logs.lock().unwrap()));
            let fields: Json = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            logs.lock().unwrap().push(line);
            if fields["trackers"].is_string() {
                break fields;
            }
        };
        let kept = std::sync::Arc::clone(&logs);
        std::thread::spawn(move || lines.for_each(|line| kept.lock().unwrap().push(line)));
        let address = |name: &str| up[name].as_str().unwrap().parse().unwrap();
        Self { child, trackers: address("trackers"), admin: address("admin"), logs, _directory: directory }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    /// Waits until it ends by itself; gives the exit code and the log.
    pub fn wait(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.child.wait().unwrap().code();
        (code, self.logs())
    }

    /// Waits until everything that was taken is in the database.
    pub async fn settled(&self) {
        let admin = self.admin;
        super::eventually("everything to be stored", async || {
            (count(admin, "odograph_records_waiting").await == 0).then_some(())
        })
        .await;
    }

    /// Log lines so far.
    pub fn logs(&self) -> Vec<String> {
        self.logs.lock().unwrap().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
