//! Fault drills on the real binary: it runs under load, one fault happens, and an audit compares the database with what
//! trackers had acknowledged. `scripts/drills` runs them. Without it this does nothing, so that `cargo test` stays quick.
//!
//! ```text
//! load ─► (relay) ─► serve ─► (wire) ─► PostgreSQL      setup: directory, server and seed of a drill
//!   └──── reports ───────► audit ◄────────┘              report: verdict, JSON line, table
//! ```

#![expect(clippy::unwrap_used, reason = "a drill fails by panicking")]

mod clock;
mod copies;
mod directus;
mod disk;
mod flags;
mod hostile;
mod kills;
mod load;
mod locks;
mod moments;
mod network;
mod postgres;
mod relay;
mod report;
mod self_check;
mod setup;
mod strace;
mod wire;

use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use odograph_testkit::{Odograph, PrivateServer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use self::report::{Line, Outcome};
use self::setup::DrillSetup;

const ODOGRAPH: Odograph = Odograph::at(env!("CARGO_BIN_EXE_odograph"));

/// A fault, and the code that causes it.
pub(crate) struct Drill {
    name: &'static str,
    about: &'static str,
    /// Whether the short version includes it.
    short: bool,
    run: fn(DrillSetup) -> Pin<Box<dyn Future<Output = Outcome>>>,
}

/// Defines the table of the drills of a theme.
#[macro_export]
macro_rules! drills {
    ($($name:literal, $length:ident, $run:path, $about:literal;)*) => {
        pub(crate) const DRILLS: &[$crate::Drill] = &[$($crate::Drill {
            name: $name,
            about: $about,
            short: $crate::drills!(@ $length),
            run: |setup| Box::pin($run(setup)),
        }),*];
    };
    (@ short) => { true };
    (@ long) => { false };
}

/// The parsed command line.
#[derive(Default)]
struct Arguments {
    short: bool,
    self_check: bool,
    list: bool,
    seed: Option<u64>,
    only: Vec<String>,
}

fn main() -> ExitCode {
    if std::env::var_os("ODOGRAPH_DRILLS").is_none() {
        // Not on standard output: a test runner's `--list` expects the names of tests there.
        eprintln!("run the drills with scripts/drills");
        return ExitCode::SUCCESS;
    }
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("scripts/drills: {error}");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<&Drill> = all().filter(|drill| arguments.chooses(drill)).collect();
    if arguments.list {
        for drill in chosen {
            println!("{:24}{}", drill.name, drill.about);
        }
        return ExitCode::SUCCESS;
    }
    // A reconnect storm needs ten thousand open files here and as many in the service.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    report::quiet_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lines = runtime.block_on(LocalSet::new().run_until(run_all(&chosen, &arguments)));
    report::table(&lines);
    let interrupted = lines.len() < chosen.len();
    ExitCode::from(u8::from(interrupted || lines.iter().any(Line::is_broken)))
}

/// All drills in the order in which they run.
fn all() -> impl Iterator<Item = &'static Drill> {
    let themes = [
        self_check::DRILLS,
        kills::DRILLS,
        postgres::DRILLS,
        locks::DRILLS,
        network::DRILLS,
        disk::DRILLS,
        clock::DRILLS,
        copies::DRILLS,
        flags::DRILLS,
        hostile::DRILLS,
    ];
    themes.into_iter().flatten()
}

async fn run_all(chosen: &[&'static Drill], arguments: &Arguments) -> Vec<Line> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap());
    let mut lines = Vec::new();
    let server = Rc::new(PrivateServer::new("drills"));
    for (at, drill) in chosen.iter().enumerate() {
        eprintln!("[{}/{}] {}: {}", at + 1, chosen.len(), drill.name, drill.about);
        let line = tokio::select! {
            line = run_one(drill, seed, arguments.short, Rc::clone(&server)) => line,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        println!("{}", line.json());
        eprintln!("        {}", line.summary());
        lines.push(line);
    }
    lines
}

/// Runs a drill until it ends, panics or reaches the time limit. Everything that it started ends with it.
async fn run_one(drill: &'static Drill, seed: u64, short: bool, server: Rc<PrivateServer>) -> Line {
    let begun = Instant::now();
    let setup = DrillSetup::new(drill.name, seed, short, server);
    let directory = setup.directory.clone();
    let outcome = report::caught((drill.run)(setup), LIMIT).await;
    let line = Line::new(drill.name, seed, outcome, begun.elapsed(), &directory);
    if !line.is_broken() {
        let _ = std::fs::remove_dir_all(&directory);
    }
    line
}

impl Arguments {
    fn chooses(&self, drill: &Drill) -> bool {
        if !self.only.is_empty() {
            return self.only.iter().any(|name| name == drill.name);
        }
        let is_self_check = drill.name == self_check::NAME;
        if self.self_check { is_self_check } else { drill.short || !self.short }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = |what: &str| given.next().ok_or_else(|| format!("{argument} needs {what}"));
        match argument.as_str() {
            "--short" => found.short = true,
            "--self-check" => found.self_check = true,
            "--list" => found.list = true,
            "--seed" => {
                let seed = value("a number")?;
                found.seed = Some(seed.parse().map_err(|_| format!("--seed {seed}: not a whole number from 0"))?);
            }
            "--only" => {
                let name = value("the name of a drill")?;
                if !all().any(|drill| drill.name == name) {
                    return Err(format!("--only {name}: unknown drill, see --list"));
                }
                found.only.push(name);
            }
            _ => return Err(format!("unknown option {argument}, see --help")),
        }
    }
    Ok(found)
}

/// The longest wait until the database holds everything that the service accepted.
const SETTLE: Duration = Duration::from_mins(3);
/// The longest drill takes four minutes on a busy machine with two cores.
const LIMIT: Duration = Duration::from_mins(10);
