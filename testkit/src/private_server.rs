//! A private PostgreSQL server for one test, started by `scripts/services`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use odograph::store::DatabaseUrl;
use tokio_postgres::Client;

use crate::database::connect;
use crate::wait::until;

/// A server that a test may stop, start and configure without disturbing others. Deleted with this value.
#[derive(Debug)]
pub struct PrivateServer {
    name: String,
    /// The URL of its database `odograph`.
    pub url: String,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Ends its connections and shuts down cleanly.
    Fast,
    /// Like a crash: it recovers at its next start.
    Immediate,
}

impl PrivateServer {
    /// Starts one. `purpose` is part of its name, for readers of `scripts/services status`.
    #[must_use]
    pub fn new(purpose: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{purpose}-{}-{number}", std::process::id());
        let url = services(&["pg-new", &name]);
        Self { name, url }
    }

    /// The directory in which `scripts/services` keeps it: its `log`, and its `data`.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/services/pg")).join(&self.name)
    }

    /// Stops it.
    pub fn stop(&self, mode: StopMode) {
        let mode = match mode {
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
        };
        services(&["pg-stop", &self.name, mode]);
    }

    /// Starts it again, on the same port.
    pub fn start(&self) {
        services(&["pg-start", &self.name]);
    }

    /// Connects to its database.
    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// The URL of its database for another user, with parameters.
    #[must_use]
    pub fn url_with(&self, user: &str, parameters: &str) -> DatabaseUrl {
        let (_, host) = self.url.split_once('@').unwrap();
        DatabaseUrl::parse(&format!("postgres://{user}@{host}?{parameters}")).unwrap()
    }

    /// Writes a file of the data directory. The server itself writes it, because it has its own file system root.
    pub async fn write(&self, file: &str, text: &str) {
        let lines: Vec<_> = text.lines().map(|line| format!("('{line}')")).collect();
        let values = if lines.is_empty() { "('')".to_owned() } else { lines.join(", ") };
        // Through a program: the server refuses a key that others may read, and COPY to a file makes such files.
        let copy = format!("COPY (VALUES {values}) TO PROGRAM 'umask 077 && cat > /srv/{file}'");
        self.connect().await.batch_execute(&copy).await.unwrap();
    }

    /// Replaces the rules for logins by these lines, and keeps the test's own connections.
    pub async fn admit(&self, lines: &str) {
        self.write("pg_hba.conf", &format!("{lines}\nhost all odograph 127.0.0.1/32 trust")).await;
        self.reload().await;
    }

    /// Makes the server read its files again, and waits until a new connection sees them.
    pub async fn reload(&self) {
        const LOADED: &str = "SELECT pg_conf_load_time()::text";
        let client = self.connect().await;
        let before: String = client.query_one(LOADED, &[]).await.unwrap().get(0);
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        until("the server to read its files again", async || {
            self.connect().await.query_one(LOADED, &[]).await.unwrap().get::<_, String>(0) != before
        })
        .await;
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let _ = script().args(["pg-rm", &self.name]).output();
    }
}

/// `scripts/services`, or the program that `ODOGRAPH_SERVICES` names instead.
fn script() -> Command {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");
    Command::new(std::env::var("ODOGRAPH_SERVICES").unwrap_or_else(|_| own.to_owned()))
}

fn services(arguments: &[&str]) -> String {
    let output = script().args(arguments).output().expect("scripts/services runs");
    assert!(output.status.success(), "services {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
