//! `strace` on a running service: it injects faults into system calls and logs that they happened.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use odograph_testkit::{ServiceProcess, eventually};

/// Dropping it detaches from the service.
pub(crate) struct Strace {
    child: Child,
    output: PathBuf,
}

impl Strace {
    /// Attaches to all threads. `calls` are traced; `fault` is what strace injects, such as `fdatasync:error=EIO`.
    pub(crate) async fn inject(serve: &ServiceProcess, directory: &Path, calls: &str, fault: &str) -> Self {
        let output = directory.join(format!("strace-{}.log", serve.pid()));
        let pid = serve.pid().to_string();
        let (trace, inject) = (format!("trace={calls}"), format!("inject={fault}"));
        let mut child = Command::new("strace")
            .args(["-f", "-y", "-s", "0", "-e", &trace, "-e", &inject, "-p", &pid, "-o"])
            .arg(&output)
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed");
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let strace = Self { child, output };
        eventually("all threads to be traced", async || {
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Some(()) };
            let traced = |task: std::fs::DirEntry| {
                let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
                !status.contains("TracerPid:\t0\n")
            };
            tasks.filter_map(Result::ok).all(traced).then_some(())
        })
        .await;
        strace
    }

    /// Waits until strace has ended with its service, and returns its log.
    pub(crate) async fn log(mut self) -> String {
        eventually("strace to end", async || self.child.try_wait().unwrap()).await;
        std::fs::read_to_string(&self.output).unwrap()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the lines of calls that did not return because the process died in them.
pub(crate) fn died_in(log: &str, call: &str) -> Vec<String> {
    let thread = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let begins = |line: &&str| line.contains(&format!(" {call}("));
    let last = log.lines().filter(|line| line.ends_with("= ?"));
    let last = last.filter(|line| begins(line) || line.contains(&format!("<... {call} resumed>")));
    let begun = last.filter_map(|line| log.lines().rev().filter(begins).find(|begun| thread(begun) == thread(line)));
    begun.map(str::to_owned).collect()
}

/// Returns the first file that a line names.
pub(crate) fn file_of(line: &str) -> Option<PathBuf> {
    Some(PathBuf::from(line.split_once('<')?.1.split_once('>')?.0))
}

/// Counts the faults that strace injected.
pub(crate) fn injected(log: &str) -> u64 {
    log.lines().filter(|line| line.contains("(INJECTED)")).count() as u64
}
