//! `odograph demo`: shows the whole job without set-up. A real service with the embedded store, a simulated fleet over loopback
//! TCP, and the audit at the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::CommandError;
use super::live::{ProgressLine, answered, bar, grouped};
use super::setup::runtime;
use super::simulate::{raise_file_limit, require_clean, sources, start_ms, summary};
use crate::app::{self, StartOptions};
use crate::config::{Lookup, Settings};
use odograph_fleet::audit;
use odograph_fleet::audit::Findings;
use odograph_fleet::{Clocks, Plan, Progress};

/// Show the whole job without set-up: embedded store, simulated fleet, real sockets
///
/// Progress and a summary go to standard error; the last line of standard output is a JSON object with the counts.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How long the fleet drives
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Number of trackers
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let directory = fresh_directory()?;
    let variables = [
        ("ODOGRAPH_LISTEN", "127.0.0.1:0".to_owned()),
        ("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("ODOGRAPH_DATA_DIR", directory.display().to_string()),
    ];
    let settings = Settings::load(&Lookup::from_variables(variables)).map_err(|e| CommandError::Usage(e.to_string()));
    let outcome = settings.and_then(|settings| runtime()?.block_on(drive(arguments, &settings)));
    if let Err(error) = std::fs::remove_dir_all(&directory) {
        note!("odograph: cannot delete {}: {error}", directory.display());
    }
    outcome
}

async fn drive(arguments: &Arguments, settings: &Settings) -> Result<(), CommandError> {
    let plan = plan(arguments)?;
    // Service and fleet each hold one end of a connection.
    raise_file_limit(2 * u64::from(arguments.devices))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| CommandError::from_error(&e))?;
    let service = app::start(settings, StartOptions::default()).await.map_err(|e| CommandError::from_error(&e))?;
    let plan = Plan { target: service.trackers, ..plan };
    let mut line = ProgressLine::new();
    introduce(arguments, settings, &service, &mut line);
    let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let fleet = odograph_fleet::run(plan, Arc::clone(&progress), stop.clone());
    tokio::pin!(fleet);
    let (begun, mut every) = (Instant::now(), tokio::time::interval(Duration::from_secs(1)));
    every.tick().await;
    let end = begun + arguments.time;
    let told = loop {
        tokio::select! {
            told = &mut fleet => break told,
            () = tokio::time::sleep_until(end), if !stop.is_cancelled() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
            _ = every.tick() => line.show(&state(&service, &progress, begun, arguments.time)),
        }
    };
    // Acknowledged records may not be in the table yet, and the stop would not wait for them.
    let written = async {
        while service.registry.tally().read().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(PATIENCE, written) => {}
        _ = interrupt.recv() => {}
    }
    line.show(&state(&service, &progress, begun, arguments.time));
    let counts = service.stop().await;
    line.show("audit: reading every row back");
    let findings = audit::audit(&settings.database_url, &told).await.map_err(|e| CommandError::from_error(&*e))?;
    summarise(&progress, &findings, counts.duplicate, &mut line);
    let (sent, acknowledged, _) = progress.read();
    println!(
        r#"{{"sent":{sent},"acknowledged":{acknowledged},"stored":{},"duplicates":{},"lost":{}}}"#,
        findings.stored, counts.duplicate, findings.missing
    );
    require_clean(&findings)
}

fn plan(arguments: &Arguments) -> Result<Plan, CommandError> {
    // A tracker makes a record per second. Sending faster means sending a backlog, which must not reach into the future.
    let rate = RECORDS_PER_SECOND.min(f64::from(arguments.devices) * RECORDS_PER_SECOND_OF_A_TRACKER);
    // A resent packet also holds newer records, so a tracker makes a few more.
    let seconds = arguments.time.as_secs_f64() * rate / f64::from(arguments.devices) * 1.1;
    let span = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).saturating_add(Duration::from_mins(10));
    let start_ms = start_ms(span).ok_or_else(|| CommandError::Usage("odograph: --for: too long for a demo".into()))?;
    Ok(Plan {
        devices: arguments.devices,
        packets: None,
        rate: Some(rate),
        lose_answer_every: LOSE_ANSWER_EVERY,
        reconnect_every: 60,
        clocks: Clocks::FewWrong,
        sources: sources(arguments.devices),
        ..Plan::new(([127, 0, 0, 1], 0).into(), start_ms)
    })
}

fn introduce(arguments: &Arguments, settings: &Settings, service: &app::Service, line: &mut ProgressLine) {
    let devices = grouped(arguments.devices.into());
    let time = humantime::format_duration(arguments.time);
    line.say(&format!("{devices} simulated trackers drive for {time} and send their positions to a real service:"));
    line.say(&format!("  trackers    {}, TCP; FMB920 with Codec 8 and FMB003 with Codec 8 Extended", service.trackers));
    line.say(&format!("  metrics     http://{}/metrics", service.admin));
    line.say(&format!("  database    {}, deleted at the end", settings.database_url));
    line.say(&format!(
        "  on purpose  one answer in {LOSE_ANSWER_EVERY} gets lost, so its records come again in another packet"
    ));
}

fn summarise(progress: &Progress, findings: &Findings, duplicates: u64, line: &mut ProgressLine) {
    let (sent, acknowledged, reconnects) = progress.read();
    line.say("result:");
    let mut count = |count: u64, what: &str| line.say(&format!("  {:>11} {what}", grouped(count)));
    count(sent, "records sent, including records sent again");
    let times = format!("acknowledged: {}", answered(progress));
    count(acknowledged, &times);
    count(duplicates, "were in the database already, because their answer got lost, and were not stored again");
    count(findings.stored, "rows in the database");
    count(reconnects, "reconnects (lost answers and scheduled)");
    line.say(&summary(findings));
    if findings.clean() {
        line.say("       each acknowledged record was looked up by its key and compared column by column");
        line.say("try it with your own service: odograph simulate --target HOST:5027 --verify");
    }
}

fn state(service: &app::Service, progress: &Progress, begun: Instant, time: Duration) -> String {
    let (sent, _, _) = progress.read();
    let counts = service.registry.tally().read();
    let share = begun.elapsed().as_secs_f64() / time.as_secs_f64().max(0.001);
    let (sent, stored, again) = (grouped(sent), grouped(counts.committed), grouped(counts.duplicate));
    format!("{} {sent} sent, {stored} stored, {again} came again", bar(share))
}

fn fresh_directory() -> Result<PathBuf, CommandError> {
    let directory =
        std::env::temp_dir().join(format!("odograph-demo-{}-{:08x}", std::process::id(), fastrand::u32(..)));
    std::fs::create_dir(&directory)
        .map_err(|e| CommandError::Failed(format!("cannot create the directory {}: {e}", directory.display())))?;
    Ok(directory)
}

/// Enough to see something, and still a small file after half a minute.
const RECORDS_PER_SECOND: f64 = 5_000.0;
/// A tracker with a backlog and a good network.
const RECORDS_PER_SECOND_OF_A_TRACKER: f64 = 200.0;
const LOSE_ANSWER_EVERY: u32 = 20;
/// For acknowledged records that are not in the table yet.
const PATIENCE: Duration = Duration::from_mins(1);
