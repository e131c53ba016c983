//! A Redis of a test's own. Killed without a word, and started again with its data or without.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::until;

pub(crate) struct RedisServer {
    pub(crate) port: u16,
    directory: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// Reserves a port and starts nothing.
    pub(crate) fn reserved() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { port, directory: tempfile::tempdir().unwrap(), child: None }
    }

    pub(crate) async fn started() -> Self {
        let mut server = Self::reserved();
        server.start().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// With what its directory holds: every write is on disk before it is answered.
    pub(crate) async fn start(&mut self) {
        let mut command = program();
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(self.directory.path());
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server runs"));
        let client = redis::Client::open(self.url()).unwrap();
        until("Redis to answer", async || match client.get_multiplexed_async_connection().await {
            Ok(mut connection) => redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok(),
            Err(_) => false,
        })
        .await;
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// As on a host that lost its disk.
    pub(crate) fn lose_everything(&mut self) {
        self.kill();
        self.directory = tempfile::tempdir().unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The installed one, or that of `scripts/services` through its own loader.
fn program() -> Command {
    let installed = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join("redis-server").is_file()));
    if installed {
        return Command::new("redis-server");
    }
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/services/rootfs"));
    let libraries =
        std::fs::read_dir(root.join("usr/lib")).expect("redis-server is installed, or scripts/services was up");
    let libraries =
        libraries.map(|entry| entry.unwrap().path()).find(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    let libraries = libraries.expect("the tree of scripts/services has libraries");
    let loader = std::fs::read_dir(&libraries).unwrap().map(|entry| entry.unwrap().path());
    let loader = loader.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("ld-linux"));
    let mut command = Command::new(loader.expect("there is a loader"));
    command.arg("--library-path").arg(libraries).arg(root.join("usr/bin/redis-server"));
    command
}
