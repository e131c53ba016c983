//! The real binary, its log in a file, to be stopped, killed and started again.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

use crate::ground::Ground;
use crate::support::service::{count, readiness};
use crate::support::{eventually, eventually_within};

/// How a service is started; the same for every start of a drill.
#[derive(Clone)]
pub(crate) struct Launch {
    data: PathBuf,
    listen: String,
    arguments: Vec<&'static str>,
    /// What runs the program, where it is not run directly.
    under: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Launch {
    pub(crate) fn new(database_url: &str, data: &Path) -> Self {
        let variables = [
            ("DATABASE_URL", database_url),
            ("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0"),
            ("ODOGRAPH_LOG_FORMAT", "json"),
            ("ODOGRAPH_TIME_WINDOW_PAST", "20000d"),
            ("ODOGRAPH_TIME_WINDOW_FUTURE", "20000d"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self {
            data: data.to_owned(),
            listen: "127.0.0.1:0".into(),
            arguments: Vec::new(),
            under: Vec::new(),
            variables,
        }
    }

    pub(crate) fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn argument(mut self, argument: &'static str) -> Self {
        self.arguments.push(argument);
        self
    }

    /// Runs it under another program, which becomes it.
    pub(crate) fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(ToString::to_string).collect();
        self
    }

    /// With the windows around the receive time that a service has by default.
    pub(crate) fn usual_windows(mut self) -> Self {
        self.variables.retain(|(name, _)| !name.starts_with("ODOGRAPH_TIME_WINDOW"));
        self
    }

    pub(crate) fn at(mut self, trackers: SocketAddr) -> Self {
        self.listen = trackers.to_string();
        self
    }

    pub(crate) fn data(mut self, data: &Path) -> Self {
        data.clone_into(&mut self.data);
        self
    }

    /// Starts it and waits for nothing.
    pub(crate) fn spawn(&self, ground: &Ground) -> Starting {
        let log = ground.next_log();
        let line = self.under.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_odograph"), "serve"]);
        let line: Vec<&str> = line.chain(self.arguments.iter().copied()).collect();
        let child = Command::new(line[0])
            .args(&line[1..])
            .env_remove("REDIS_URL")
            .env_remove("ODOGRAPH_DRILLS")
            .env("ODOGRAPH_DATA_DIR", &self.data)
            .env("ODOGRAPH_LISTEN", &self.listen)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Starting { child, log }
    }

    /// Starts it and waits until it is up.
    pub(crate) async fn start(&self, ground: &Ground) -> Serve {
        self.spawn(ground).up().await
    }
}

/// A service that may not be up yet. Killed when dropped.
pub(crate) struct Starting {
    child: Child,
    log: PathBuf,
}

impl Starting {
    /// Where it listens, once it has said so.
    pub(crate) fn is_up(&self) -> Option<(SocketAddr, SocketAddr)> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let fields = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        let up = fields.into_iter().find(|fields| fields["trackers"].is_string())?;
        let address = |name: &str| up[name].as_str().unwrap().parse().unwrap();
        Some((address("trackers"), address("admin")))
    }

    pub(crate) async fn up(mut self) -> Serve {
        let up = eventually("the service to be up", async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the service ended at its start, {status}: {}", self.log());
            }
            self.is_up()
        });
        let (trackers, admin) = up.await;
        Serve { starting: self, trackers, admin }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ends(&mut self) -> ExitStatus {
        eventually("the service to end", async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service that is up. Killed when dropped.
pub(crate) struct Serve {
    starting: Starting,
    pub(crate) trackers: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Serve {
    pub(crate) fn pid(&self) -> u32 {
        self.starting.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.starting.log()
    }

    pub(crate) fn kill(self) {
        self.starting.kill();
    }

    /// Holds every thread of it, which nobody can catch or delay.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ends(&mut self) -> ExitStatus {
        self.starting.ends().await
    }

    /// SIGTERM, and the exit code of good order.
    pub(crate) async fn terminate_in_order(mut self) {
        self.signal(Signal::TERM);
        let status = self.ends().await;
        assert_eq!(status.code(), Some(0), "SIGTERM: {}", self.log());
    }

    /// Waits until everything that was taken is in the database.
    pub(crate) async fn settled(&self) {
        let waiting = async || (self.count("odograph_records_waiting").await == 0).then_some(());
        eventually_within(Duration::from_mins(3), "everything to be stored", waiting).await;
    }

    /// A counter or a gauge of `/metrics`.
    pub(crate) async fn count(&self, series: &str) -> u64 {
        count(self.admin, series).await
    }

    /// Waits until `/readyz` names a reason.
    pub(crate) async fn says(&self, reason: &str) {
        let holds = async || readiness(self.admin).await.2.iter().any(|named| named == reason).then_some(());
        eventually(&format!("readiness to say {reason}"), holds).await;
    }

    /// Waits until `/readyz` has nothing to say.
    pub(crate) async fn is_ready(&self) {
        eventually("readiness", async || readiness(self.admin).await.2.is_empty().then_some(())).await;
    }
}
