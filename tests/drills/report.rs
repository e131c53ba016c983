//! The result of a drill: its verdict, its JSON line, and the table of all drills.

use std::any::Any;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use odograph_fleet::audit::Findings;
use serde_json::{Map, Value as Json, json};

/// The result of a drill that ran to its end.
pub(crate) struct Outcome {
    pub(crate) findings: Findings,
    pub(crate) faults: Faults,
}

/// How often the drill saw each fault happen. A fault that did not happen makes the drill worthless.
pub(crate) type Faults = Vec<(&'static str, u64)>;

/// One line of the report.
pub(crate) struct Line {
    drill: &'static str,
    seed: u64,
    findings: Findings,
    faults: Faults,
    took: Duration,
    /// The reason why it is broken, and the directory of its files.
    broken: Option<(String, PathBuf)>,
}

impl Line {
    /// Decides whether the drill held. An error is the reason why the drill did not run to its end.
    pub(crate) fn new(
        drill: &'static str,
        seed: u64,
        outcome: Result<Outcome, String>,
        took: Duration,
        directory: &Path,
    ) -> Self {
        let (findings, faults, broken) = match outcome {
            Ok(Outcome { findings, faults }) => {
                let why = fault_of(&findings, &faults);
                (findings, faults, why)
            }
            Err(why) => (Findings::default(), Faults::new(), Some(why)),
        };
        let broken = broken.map(|why| (why, directory.to_owned()));
        Self { drill, seed, findings, faults, took, broken }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub(crate) fn findings(&self) -> &Findings {
        &self.findings
    }

    fn verdict(&self) -> &'static str {
        if self.is_broken() { "broken" } else { "held" }
    }

    pub(crate) fn json(&self) -> Json {
        let Self { drill, seed, findings, faults, took, broken } = self;
        let Findings { acknowledged, missing, twice, wrong, unknown, quarantined, stored, examples: _ } = findings;
        let faults: Map<String, Json> = faults.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        let mut line = json!({
            "drill": drill, "seed": seed, "acknowledged": acknowledged, "missing": missing, "twice": twice,
            "wrong": wrong, "verdict": self.verdict(), "unknown": unknown, "quarantined": quarantined,
            "stored": stored, "faults": faults, "seconds": took.as_secs(),
        });
        if let Some((why, kept)) = broken {
            line["why"] = json!(why);
            line["kept"] = json!(kept.display().to_string());
        }
        line
    }

    pub(crate) fn summary(&self) -> String {
        let faults: Vec<_> = self.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let summary =
            format!("{}: {} records acknowledged; {}", self.verdict(), self.findings.acknowledged, faults.join(", "));
        match &self.broken {
            None => format!("{summary}; {} s", self.took.as_secs()),
            Some((why, kept)) => format!("{summary}\n        {why}\n        its files are in {}", kept.display()),
        }
    }
}

/// Returns the first problem, if any.
fn fault_of(findings: &Findings, faults: &Faults) -> Option<String> {
    if !findings.clean() {
        let Findings { missing, twice, wrong, unknown, examples, .. } = findings;
        let counts = format!("{missing} missing, {twice} twice, {wrong} wrong, {unknown} never sent");
        return Some(format!("the audit found {counts}: {}", examples.join(" | ")));
    }
    if findings.acknowledged < LEAST_LOAD {
        return Some(format!("only {} records were acknowledged: too few to test anything", findings.acknowledged));
    }
    if faults.is_empty() {
        return Some("no fault was seen".into());
    }
    faults.iter().find(|(_, count)| *count == 0).map(|(name, _)| format!("no fault of this kind was seen: {name}"))
}

/// Runs a future until it ends, panics or reaches the limit, and returns which.
pub(crate) async fn caught<T: 'static>(work: impl Future<Output = T> + 'static, limit: Duration) -> Result<T, String> {
    let mut task = tokio::task::spawn_local(work);
    match tokio::time::timeout(limit, &mut task).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(ended)) => Err(LAST_PANIC.take().unwrap_or_else(|| match ended.try_into_panic() {
            Ok(panic) => text_of(&*panic),
            Err(ended) => ended.to_string(),
        })),
        Err(_) => {
            task.abort();
            let _ = task.await;
            Err(format!("it did not end within {limit:?}"))
        }
    }
}

/// Keeps the message and the location of a panic in the drill's own thread for the report.
pub(crate) fn quiet_panics() {
    let usual = std::panic::take_hook();
    let own = std::thread::current().id();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() != own {
            return usual(panic);
        }
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        LAST_PANIC.set(Some(format!("{} ({place})", text_of(panic.payload()))));
    }));
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "a panic".into())
}

/// Prints the table to standard error, because programs read standard output.
pub(crate) fn table(lines: &[Line]) {
    eprintln!("\n| drill | acknowledged | missing | twice | wrong | verdict | s | faults |");
    eprintln!("|---|---:|---:|---:|---:|---|---:|---|");
    for line in lines {
        let Findings { acknowledged, missing, twice, wrong, .. } = &line.findings;
        let faults: Vec<_> = line.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
        eprintln!(
            "| {} | {acknowledged} | {missing} | {twice} | {wrong} | {} | {} | {} |",
            line.drill,
            line.verdict(),
            line.took.as_secs(),
            faults.join(", ")
        );
    }
    let broken = lines.iter().filter(|line| line.is_broken()).count();
    let acknowledged: u64 = lines.iter().map(|line| line.findings.acknowledged).sum();
    eprintln!("\n{} drills, {acknowledged} records acknowledged, {broken} broken", lines.len());
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Fewer acknowledged records prove nothing.
const LEAST_LOAD: u64 = 500;
