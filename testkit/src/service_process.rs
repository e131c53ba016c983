//! The service's binary: its commands, and `serve` as a process that can be stopped, killed and started again.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::admin::{count, readiness};
use crate::service::ANY_TIME;
use crate::wait::{INTERVAL, PATIENCE, eventually, eventually_within};

/// The binary. Only a test or a benchmark knows where cargo put it: `Odograph::at(env!("CARGO_BIN_EXE_odograph"))`.
#[derive(Clone, Copy, Debug)]
pub struct Odograph(&'static str);

impl Odograph {
    /// The binary at a path.
    #[must_use]
    pub const fn at(path: &'static str) -> Self {
        Self(path)
    }

    /// Its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        self.0
    }

    /// A command with the time windows of all test services, and without a Redis.
    #[must_use]
    pub fn command(self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.0);
        command.args(arguments).env_remove("REDIS_URL").envs(ANY_TIME).envs(variables.iter().copied());
        command
    }

    /// Runs a command to its end.
    #[must_use]
    pub fn run(self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.command(arguments, variables).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts `serve` and waits until it is up. It has its own data directory, unless a variable names one.
    #[must_use]
    pub fn serve(self, database_url: &str, listen: &str, variables: &[(&str, &str)]) -> ServiceProcess {
        self.serve_with(&[], database_url, listen, variables)
    }

    /// Starts `serve` with arguments, as [`Self::serve`] does.
    #[must_use]
    pub fn serve_with(
        self,
        arguments: &[&'static str],
        database_url: &str,
        listen: &str,
        variables: &[(&str, &str)],
    ) -> ServiceProcess {
        let directory = tempfile::tempdir().unwrap();
        let mut launch = Launch::new(self, database_url, &directory.path().join("data")).listen(listen);
        launch.arguments.extend(arguments);
        for (name, value) in variables {
            launch = launch.with(name, value);
        }
        let mut process = launch.start_blocking(&directory.path().join("serve.log"));
        process.directory = Some(directory);
        process
    }
}

/// The way to start `serve`, the same for every start of a test.
#[derive(Clone, Debug)]
pub struct Launch {
    program: Odograph,
    data: PathBuf,
    listen: String,
    arguments: Vec<&'static str>,
    /// The program that runs the binary, if it is not run directly.
    under: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Launch {
    /// `serve` with a database and a data directory, on free ports, without a Redis.
    #[must_use]
    pub fn new(program: Odograph, database_url: &str, data: &Path) -> Self {
        let variables =
            [("DATABASE_URL", database_url), ("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0"), ("ODOGRAPH_LOG_FORMAT", "json")];
        let variables = variables.into_iter().chain(ANY_TIME);
        Self {
            program,
            data: data.to_owned(),
            listen: "127.0.0.1:0".into(),
            arguments: Vec::new(),
            under: Vec::new(),
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: &'static str) -> Self {
        self.arguments.push(argument);
        self
    }

    /// Runs it under another program, which replaces itself with it.
    #[must_use]
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(ToString::to_string).collect();
        self
    }

    /// Removes the wide time windows of tests, so that the service has its defaults.
    #[must_use]
    pub fn default_time_windows(mut self) -> Self {
        self.variables.retain(|(name, _)| !name.starts_with("ODOGRAPH_TIME_WINDOW"));
        self
    }

    /// Listens for trackers at an address.
    #[must_use]
    pub fn listen(mut self, trackers: &str) -> Self {
        trackers.clone_into(&mut self.listen);
        self
    }

    /// Uses another data directory.
    #[must_use]
    pub fn data(mut self, data: &Path) -> Self {
        data.clone_into(&mut self.data);
        self
    }

    /// Starts it with this log file, and waits for nothing.
    #[must_use]
    pub fn spawn(&self, log: &Path) -> StartingService {
        let line = self.under.iter().map(String::as_str).chain([self.program.path(), "serve"]);
        let line: Vec<&str> = line.chain(self.arguments.iter().copied()).collect();
        let child = Command::new(line[0])
            .args(&line[1..])
            // Tests share one Redis, and its default stream belongs to the one test that asks for it.
            .env_remove("REDIS_URL")
            .env_remove("ODOGRAPH_DRILLS")
            .env("ODOGRAPH_DATA_DIR", &self.data)
            .env("ODOGRAPH_LISTEN", &self.listen)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        StartingService { child, log: log.to_owned() }
    }

    /// Starts it with this log file, and blocks the thread until it is up.
    #[must_use]
    pub fn start_blocking(&self, log: &Path) -> ServiceProcess {
        self.spawn(log).up_blocking()
    }

    /// Starts it with this log file, and waits until it is up.
    pub async fn start(&self, log: &Path) -> ServiceProcess {
        self.spawn(log).up().await
    }
}

/// A service that may not be up yet. Killed when dropped.
#[derive(Debug)]
pub struct StartingService {
    child: Child,
    log: PathBuf,
}

impl StartingService {
    /// The addresses for trackers and of the admin listener, once the log names them.
    #[must_use]
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let log = self.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        let up = lines.find(|fields| fields["trackers"].is_string())?;
        let address = |name: &str| up[name].as_str().unwrap().parse().unwrap();
        Some((address("trackers"), address("admin")))
    }

    /// Waits until it is up.
    pub async fn up(mut self) -> ServiceProcess {
        let (trackers, admin) = eventually("the service to be up", async || self.poll_up()).await;
        ServiceProcess { starting: self, trackers, admin, directory: None }
    }

    /// Waits until it is up, and blocks the thread.
    fn up_blocking(mut self) -> ServiceProcess {
        let start = std::time::Instant::now();
        loop {
            if let Some((trackers, admin)) = self.poll_up() {
                return ServiceProcess { starting: self, trackers, admin, directory: None };
            }
            assert!(start.elapsed() < PATIENCE, "the service does not come up: {}", self.log());
            std::thread::sleep(INTERVAL);
        }
    }

    fn poll_up(&mut self) -> Option<(SocketAddr, SocketAddr)> {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the service ended at its start, {status}: {}", self.log());
        }
        self.addresses()
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself.
    pub async fn ends(&mut self) -> ExitStatus {
        eventually("the service to end", async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for StartingService {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service that is up. Killed when dropped.
#[derive(Debug)]
pub struct ServiceProcess {
    starting: StartingService,
    /// The address for trackers.
    pub trackers: SocketAddr,
    /// The address of its admin listener.
    pub admin: SocketAddr,
    /// Log and data, unless the caller owns them.
    directory: Option<TempDir>,
}

impl ServiceProcess {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.starting.child.id()
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.starting.log()
    }

    /// The lines of its log so far.
    #[must_use]
    pub fn logs(&self) -> Vec<String> {
        self.log().lines().map(str::to_owned).collect()
    }

    /// kill -9.
    pub fn kill(self) {
        self.starting.kill();
    }

    /// SIGTERM. Returns the exit code.
    #[must_use]
    pub fn terminate(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.starting.child.wait().unwrap().code()
    }

    /// SIGTERM, and the exit code must be 0.
    pub async fn terminate_in_order(mut self) {
        self.signal(Signal::TERM);
        let status = self.ends().await;
        assert_eq!(status.code(), Some(0), "SIGTERM: {}", self.log());
    }

    /// SIGTERM, and the exit code must be 0. Returns the lines of its log.
    #[must_use]
    pub fn terminate_and_read(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        let status = self.starting.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "SIGTERM: {}", self.log());
        self.logs()
    }

    /// Waits until it ends by itself. Returns the exit code and the lines of its log.
    #[must_use]
    pub fn wait(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.starting.child.wait().unwrap().code();
        (code, self.logs())
    }

    /// Waits until it ends by itself, without blocking the thread.
    pub async fn ends(&mut self) -> ExitStatus {
        self.starting.ends().await
    }

    /// Stops all of its threads. A process cannot catch or delay this.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// A counter or a gauge of `/metrics`.
    pub async fn count(&self, series: &str) -> u64 {
        count(self.admin, series).await
    }

    /// Waits until the database holds every record that the service accepted.
    pub async fn settled(&self) {
        self.settled_within(PATIENCE).await;
    }

    /// Does the same with another limit.
    pub async fn settled_within(&self, patience: Duration) {
        let settled = async || (self.count("odograph_records_waiting").await == 0).then_some(());
        eventually_within(patience, "everything to be stored", settled).await;
    }

    /// Waits until `/readyz` names a reason.
    pub async fn names_reason(&self, reason: &str) {
        let named = async || readiness(self.admin).await.2.iter().any(|named| named == reason).then_some(());
        eventually(&format!("readiness to name {reason}"), named).await;
    }

    /// Waits until `/readyz` names no reason.
    pub async fn is_ready(&self) {
        eventually("readiness", async || readiness(self.admin).await.2.is_empty().then_some(())).await;
    }
}
