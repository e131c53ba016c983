//! A private Redis server for one test, which can be killed and started again, with its data or without.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::certificates::CertificateAndKey;
use crate::wait::until;

/// A server that may not run. Killed with this value.
#[derive(Debug)]
pub struct RedisServer {
    /// Its port on loopback.
    pub port: u16,
    directory: TempDir,
    child: Option<Child>,
    /// Its certificate, if it speaks TLS.
    identity: Option<CertificateAndKey>,
}

impl RedisServer {
    /// Reserves a port and starts nothing.
    #[must_use]
    pub fn reserved() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { port, directory: tempfile::tempdir().unwrap(), child: None, identity: None }
    }

    /// A server that answers.
    pub async fn started() -> Self {
        let mut server = Self::reserved();
        server.start().await;
        server
    }

    /// A server that speaks TLS only, with this certificate. Its URL begins with `redis:` all the same.
    pub async fn started_with_tls(identity: CertificateAndKey) -> Self {
        let mut server = Self::reserved();
        server.identity = Some(identity);
        server.start().await;
        server
    }

    /// The URL as in `REDIS_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it with the data in its directory, and waits until it answers. Every write is on disk before its answer.
    pub async fn start(&mut self) {
        let mut command = program();
        command.args(["--bind", "127.0.0.1", "--save", ""]);
        let port = self.port.to_string();
        match &self.identity {
            None => drop(command.args(["--port", &port])),
            Some(pair) => {
                let file = |name: &str, text: &str| {
                    let file = self.directory.path().join(name);
                    std::fs::write(&file, text).unwrap();
                    file
                };
                command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--tls-cert-file"]);
                command
                    .arg(file("server.pem", &pair.certificate))
                    .arg("--tls-key-file")
                    .arg(file("server.key", &pair.key));
            }
        }
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(self.directory.path());
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server runs"));
        if self.identity.is_some() {
            let listens = async || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            until("Redis to listen", listens).await;
            return;
        }
        let client = redis::Client::open(self.url()).unwrap();
        until("Redis to answer", async || match client.get_multiplexed_async_connection().await {
            Ok(mut connection) => redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok(),
            Err(_) => false,
        })
        .await;
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills it and deletes its data, as on a host that lost its disk.
    pub fn lose_everything(&mut self) {
        self.kill();
        self.directory = tempfile::tempdir().unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The installed program, or that of `scripts/services`, run by the loader in its tree.
fn program() -> Command {
    let installed = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join("redis-server").is_file()));
    if installed {
        return Command::new("redis-server");
    }
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/services/rootfs"));
    let libraries =
        std::fs::read_dir(root.join("usr/lib")).expect("redis-server is installed, or scripts/services was up");
    let libraries =
        libraries.map(|entry| entry.unwrap().path()).find(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    let libraries = libraries.expect("the tree of scripts/services has libraries");
    let mut loaders = std::fs::read_dir(&libraries).unwrap().map(|entry| entry.unwrap().path());
    let loader = loaders.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("ld-linux"));
    let mut command = Command::new(loader.expect("the tree of scripts/services has a loader"));
    command.arg("--library-path").arg(libraries).arg(root.join("usr/bin/redis-server"));
    command
}
