//! `odograph simulate`: a fleet against a running service, and the audit of what it was told.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, runtime};
use crate::fleet::{self, Plan, Progress, audit};
use crate::store::DatabaseUrl;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The service's tracker listener
    #[arg(long, value_name = "HOST:PORT")]
    target: String,
    /// Number of trackers
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Records in a packet
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=150))]
    records: u8,
    /// Packets of each tracker
    #[arg(long, default_value_t = 100)]
    packets: u32,
    /// Records a second of the whole fleet; without it, as fast as answers come
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Let one answer in so many get lost, so that its records come again in another packet; 0 never
    #[arg(long, default_value_t = 20)]
    lose_answer_every: u32,
    /// Number of the first tracker in the test range of IMEIs
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    first_device: u32,
    /// Audit this database afterwards: each acknowledged record exactly once, with the values sent
    #[arg(long, value_name = "DATABASE_URL")]
    verify: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let verify = arguments.verify.as_deref().map(DatabaseUrl::parse).transpose();
    let verify = verify.map_err(|wrong| Failure::Usage(format!("odograph: --verify: {wrong}")))?;
    let plan = plan(arguments)?;
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|wrong| Failure::chain(&wrong))?;
        let progress = Arc::new(Progress::default());
        let fleet = fleet::run(plan, Arc::clone(&progress), stop.clone());
        tokio::pin!(fleet);
        let told = loop {
            tokio::select! {
                told = &mut fleet => break told,
                _ = interrupt.recv() => stop.cancel(),
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    let (sent, acknowledged, reconnects) = progress.read();
                    eprintln!("sent {sent} · acknowledged {acknowledged} · reconnects {reconnects}");
                }
            }
        };
        let (sent, acknowledged, reconnects) = progress.read();
        let mut line = serde_json::json!({ "sent": sent, "acknowledged": acknowledged, "reconnects": reconnects });
        let Some(url) = verify else {
            println!("{line}");
            return Ok(());
        };
        let findings = audit::audit(&url, &told).await.map_err(|wrong| Failure::chain(&*wrong))?;
        line["audit"] = serde_json::json!({
            "acknowledged": findings.acknowledged, "stored": findings.stored,
            "missing": findings.missing, "twice": findings.twice, "wrong": findings.wrong,
        });
        println!("{line}");
        if findings.clean() {
            Ok(())
        } else {
            Err(Failure::Failed("the audit found records that break the promise".into()))
        }
    })
}

fn plan(arguments: &Arguments) -> Result<Plan, Failure> {
    let wrong = |what: String| Failure::Usage(format!("odograph: --target {}: {what}", arguments.target));
    let mut addresses = arguments.target.to_socket_addrs().map_err(|e| wrong(e.to_string()))?;
    let target: SocketAddr = addresses.next().ok_or_else(|| wrong("no address".into()))?;
    Ok(Plan {
        target,
        devices: arguments.devices,
        records: arguments.records,
        packets: Some(arguments.packets),
        rate: arguments.rate,
        lose_answer_every: arguments.lose_answer_every,
        first_device: arguments.first_device,
        start_ms: a_day_ago_ms(),
    })
}

/// Device time of the first record: a backlog of a day, so that no record is of the future.
pub(super) fn a_day_ago_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(Duration::from_hours(24)).as_millis()).unwrap_or(0)
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("must be a number above 0".into()),
    }
}
