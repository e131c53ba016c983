//! `odograph demo`: the whole main job with no set-up. A real service with the embedded store, a simulated fleet over
//! loopback TCP, and the audit at the end.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Failure, runtime, simulate};
use crate::app;
use crate::config::{Lookup, Settings};
use crate::fleet::{self, Plan, Progress, audit};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How long the fleet drives
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Number of trackers
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let directory = fresh_directory()?;
    let variables = [
        ("ODOGRAPH_LISTEN", "127.0.0.1:0".to_owned()),
        ("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("ODOGRAPH_DATA_DIR", directory.display().to_string()),
    ];
    let settings = Settings::load(&Lookup::from_variables(variables)).map_err(|e| Failure::Usage(e.to_string()))?;
    let outcome = runtime()?.block_on(drive(arguments, &settings));
    if let Err(wrong) = std::fs::remove_dir_all(&directory) {
        eprintln!("odograph: {} is left behind: {wrong}", directory.display());
    }
    outcome
}

async fn drive(arguments: &Arguments, settings: &Settings) -> Result<(), Failure> {
    let service = app::start(settings).await.map_err(|wrong| Failure::chain(&wrong))?;
    eprintln!("service: trackers on {}, http://{}/metrics", service.trackers, service.admin);
    eprintln!("store:   {}", settings.database_url);
    eprintln!("fleet:   {} trackers, one answer in 20 lost on purpose", arguments.devices);
    let plan = Plan {
        target: service.trackers,
        devices: arguments.devices,
        records: 10,
        packets: None,
        rate: Some(RECORDS_PER_SECOND),
        lose_answer_every: 20,
        first_device: 0,
        start_ms: simulate::a_day_ago_ms(),
    };
    let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let fleet = fleet::run(plan, Arc::clone(&progress), stop.clone());
    tokio::pin!(fleet);
    let end = tokio::time::Instant::now() + arguments.time;
    let told = loop {
        tokio::select! {
            told = &mut fleet => break told,
            () = tokio::time::sleep_until(end), if !stop.is_cancelled() => stop.cancel(),
            () = tokio::time::sleep(Duration::from_secs(1)) => show(&service, &progress),
        }
    };
    let counts = service.stop().await;
    let findings = audit::audit(&settings.database_url, &told).await.map_err(|wrong| Failure::chain(&*wrong))?;
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    let (sent, acknowledged, _) = progress.read();
    eprintln!(
        "audit:   {} records acknowledged, {} missing, {} twice, {} wrong",
        findings.acknowledged, findings.missing, findings.twice, findings.wrong
    );
    println!(
        r#"{{"sent":{sent},"acknowledged":{acknowledged},"stored":{},"duplicates":{},"lost":{}}}"#,
        findings.stored, counts.duplicate, findings.missing
    );
    if findings.clean() {
        Ok(())
    } else {
        Err(Failure::Failed("the audit found records that break the promise".into()))
    }
}

/// Live progress: one line that is written over on a terminal, one line a second elsewhere.
fn show(service: &app::Running, progress: &Progress) {
    let (sent, acknowledged, reconnects) = progress.read();
    let counts = service.registry.tally().read();
    let line = format!(
        "sent {sent} · acknowledged {acknowledged} · stored {} · duplicates {} · waiting {} · reconnects {reconnects}",
        counts.committed, counts.duplicate, counts.waiting
    );
    let mut out = std::io::stderr().lock();
    let _ = if out.is_terminal() { write!(out, "\r\x1b[2K{line}") } else { writeln!(out, "{line}") };
    let _ = out.flush();
}

fn fresh_directory() -> Result<PathBuf, Failure> {
    let directory =
        std::env::temp_dir().join(format!("odograph-demo-{}-{:08x}", std::process::id(), fastrand::u32(..)));
    std::fs::create_dir(&directory)
        .map_err(|wrong| Failure::Failed(format!("cannot make the directory {}: {wrong}", directory.display())))?;
    Ok(directory)
}

/// Lively, and still a small file after half a minute.
const RECORDS_PER_SECOND: f64 = 5_000.0;
