//! `odograph simulate`: runs a fleet against a service, and audits what the service acknowledged.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::CommandError;
use super::live::{ProgressLine, answered, bar, grouped};
use super::setup::runtime;
use crate::store::{DatabaseUrl, server_of};
use odograph_fleet::audit;
use odograph_fleet::audit::Findings;
use odograph_fleet::{Clocks, Plan, Progress, registered, test_imei};

/// Send positions to a service as a fleet of trackers would
///
/// Every second tracker is an FMB920 with Codec 8, the others are FMB003 with Codec 8 Extended. They log in, send the newest
/// records first and wait for each answer. Some answers get lost, and their records come again, packed with newer ones. The
/// last line of standard output is a JSON object: what was sent, what was acknowledged, and what the audit found.
///
/// IMEIs come from a test range that no manufacturer uses (001000000000000 and up). If the table `devices` of the database
/// given by `--verify` or `DATABASE_URL` holds one of them, nothing is sent without `--force`.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The service's tracker listener
    #[arg(long, value_name = "HOST:PORT")]
    target: String,
    /// Number of trackers
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Records per packet
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=150))]
    records: u8,
    /// Packets per tracker
    #[arg(long, default_value_t = 100)]
    packets: u32,
    /// Records per second of the whole fleet. Default: as fast as answers come
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Lose one answer in N, so that its records come again in another packet; 0 for never
    #[arg(long, default_value_t = 20)]
    lose_answer_every: u32,
    /// Reconnect after N packets; 0 for never
    #[arg(long, default_value_t = 100)]
    reconnect_every: u32,
    /// Which clocks are wrong: none; a few, within the default time window of a service; or some in 2004, for the quarantine
    #[arg(long, value_enum, default_value_t = ClockArgument::Few)]
    wrong_clocks: ClockArgument,
    /// Number of the first tracker in the test range of IMEIs. Default: random, so that runs do not overlap
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    first_device: Option<u32>,
    /// Connect from N addresses, 127.0.0.1 and up, to a target on loopback. Default: one for every 20,000 trackers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    sources: Option<u16>,
    /// Audit a database afterwards: each acknowledged record is there exactly once, with the values sent. Without a value, the one in
    /// the variable `DATABASE_URL`, as everyone on this machine can read a password in an argument
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    verify: Option<String>,
    /// How long the audit waits for missing records after the last one arrived
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// Send even if the table `devices` holds IMEIs of the fleet
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ClockArgument {
    None,
    Few,
    Stray,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let verify = arguments.verify.as_deref().map(database_to_verify).transpose();
    let verify = verify.map_err(|e| CommandError::Usage(format!("odograph: --verify: {e}")))?;
    let plan = plan(arguments)?;
    raise_file_limit(plan.devices.into())?;
    runtime()?.block_on(async {
        refuse_registered(verify.as_ref(), &plan, arguments.force).await?;
        drive(plan, verify.as_ref(), arguments.settle).await
    })
}

/// The database that is named, or that of the environment.
fn database_to_verify(text: &str) -> Result<DatabaseUrl, String> {
    if text.is_empty() {
        let named = std::env::var("DATABASE_URL").map_err(|_| "expected a URL, here or in DATABASE_URL".to_owned())?;
        return DatabaseUrl::parse(&named).map_err(|e| format!("DATABASE_URL: {e}"));
    }
    let url = DatabaseUrl::parse(text).map_err(|e| e.to_string())?;
    if server_of(&url).is_some_and(|server| server.config().get_password().is_some()) {
        return Err("everyone on this machine can read a password in an argument: put the URL into DATABASE_URL, and \
                    pass --verify without a value"
            .to_owned());
    }
    Ok(url)
}

async fn drive(plan: Plan, verify: Option<&DatabaseUrl>, settle: Duration) -> Result<(), CommandError> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| CommandError::from_error(&e))?;
    let progress = Arc::new(Progress::default());
    let mut line = ProgressLine::new();
    let (first, last) = (test_imei(plan.first_device), test_imei(plan.first_device + plan.devices - 1));
    line.say(&format!(
        "{} trackers, IMEI {first} to {last} (--first-device {})",
        grouped(plan.devices.into()),
        plan.first_device
    ));
    let fleet = odograph_fleet::run(plan, Arc::clone(&progress), stop.clone());
    tokio::pin!(fleet);
    let begun = Instant::now();
    let told = loop {
        tokio::select! {
            told = &mut fleet => break told,
            _ = interrupt.recv() => stop.cancel(),
            () = tokio::time::sleep(Duration::from_secs(1)) => line.show(&state(&plan, &progress, begun)),
        }
    };
    line.show(&state(&plan, &progress, begun));
    line.say(&format!("answered: {}", answered(&progress)));
    let (sent, acknowledged, reconnects) = progress.read();
    let mut outcome = serde_json::json!({ "sent": sent, "acknowledged": acknowledged, "reconnects": reconnects });
    let Some(url) = verify else {
        println!("{outcome}");
        return Ok(());
    };
    line.show("audit: reading every row of the fleet back");
    let findings = tokio::select! {
        findings = audit::settled(url, &told, settle) => findings.map_err(|e| CommandError::from_error(&*e))?,
        _ = interrupt.recv() => return Err(CommandError::Failed("interrupted before the end of the audit".into())),
    };
    line.say(&summary(&findings));
    outcome["audit"] = serde_json::json!({
        "acknowledged": findings.acknowledged, "stored": findings.stored, "missing": findings.missing,
        "twice": findings.twice, "wrong": findings.wrong, "unknown": findings.unknown,
        "quarantined": findings.quarantined,
    });
    println!("{outcome}");
    require_clean(&findings)
}

/// The result of the audit, in words.
pub(super) fn summary(findings: &Findings) -> String {
    let Findings { acknowledged, missing, twice, wrong, unknown, quarantined, stored: _, examples } = findings;
    let quarantined =
        if *quarantined > 0 { format!("; {} in quarantine", grouped(*quarantined)) } else { String::new() };
    let text = format!(
        "audit: {} records acknowledged; {missing} missing, {twice} twice, {wrong} wrong, {unknown} that nobody sent{quarantined}",
        grouped(*acknowledged)
    );
    examples.iter().fold(text, |text, example| format!("{text}\n  {example}"))
}

/// Fails if the audit found something.
pub(super) fn require_clean(findings: &Findings) -> Result<(), CommandError> {
    if findings.clean() {
        Ok(())
    } else {
        Err(CommandError::Failed("the audit found records that break the promise".into()))
    }
}

fn state(plan: &Plan, progress: &Progress, begun: Instant) -> String {
    let (sent, acknowledged, _) = progress.read();
    let all = f64::from(plan.devices) * f64::from(plan.records) * f64::from(plan.packets.unwrap_or(u32::MAX));
    #[expect(clippy::cast_precision_loss, reason = "a bar")]
    let share = acknowledged as f64 / all;
    let rate = u128::from(acknowledged) * 1000 / begun.elapsed().as_millis().max(1);
    let rate = grouped(u64::try_from(rate).unwrap_or(u64::MAX));
    format!("{} {} sent, {} acknowledged, {rate}/s", bar(share), grouped(sent), grouped(acknowledged))
}

fn plan(arguments: &Arguments) -> Result<Plan, CommandError> {
    let usage = |problem: String| CommandError::Usage(format!("odograph: --target {}: {problem}", arguments.target));
    let mut addresses = arguments.target.to_socket_addrs().map_err(|e| usage(e.to_string()))?;
    let target: SocketAddr = addresses.next().ok_or_else(|| usage("no address".into()))?;
    let on_loopback = matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback());
    let sources = match arguments.sources {
        Some(2..) if !on_loopback => return Err(usage("--sources requires a target in 127.0.0.0/8".into())),
        Some(sources) => sources,
        None if on_loopback => sources(arguments.devices),
        None => 1,
    };
    let clocks = match arguments.wrong_clocks {
        ClockArgument::None => Clocks::Right,
        ClockArgument::Few => Clocks::FewWrong,
        ClockArgument::Stray => Clocks::SomeStray,
    };
    let span = Duration::from_secs(u64::from(arguments.records) * u64::from(arguments.packets));
    let start_ms = start_ms(span).ok_or_else(|| {
        let days = span.as_secs() / 86_400;
        CommandError::Usage(format!(
            "odograph: --packets: a tracker makes a record per second, so these are {days} days of records; the maximum is {}",
            MOST_SPAN.as_secs() / 86_400
        ))
    })?;
    Ok(Plan {
        devices: arguments.devices,
        records: arguments.records,
        packets: Some(arguments.packets),
        rate: arguments.rate,
        lose_answer_every: arguments.lose_answer_every,
        reconnect_every: arguments.reconnect_every,
        first_device: arguments.first_device.unwrap_or_else(|| fastrand::u32(0..1_000_000) * 1_000),
        clocks,
        sources,
        ..Plan::new(target, start_ms)
    })
}

/// Device time of the first record, chosen so that all records of the span are inside the default time window of a service.
/// `None` if the span is too long for that.
pub(super) fn start_ms(span: Duration) -> Option<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = now.checked_sub(span + Duration::from_millis(Clocks::MAX_AHEAD_MS) + MARGIN)?;
    (span <= MOST_SPAN).then(|| u64::try_from(start.as_millis()).unwrap_or(0))
}

/// Fails if IMEIs of the fleet are registered: before anything is sent.
async fn refuse_registered(verify: Option<&DatabaseUrl>, plan: &Plan, force: bool) -> Result<(), CommandError> {
    let named = std::env::var("DATABASE_URL").ok().and_then(|url| DatabaseUrl::parse(&url).ok());
    let Some(url) = verify.or(named.as_ref()) else { return Ok(()) };
    let found = match registered(url, plan).await {
        Ok(found) => found,
        Err(error) if verify.is_some() => return Err(CommandError::from_error(&*error)),
        Err(error) => {
            note!(
                "odograph: cannot look up the fleet's IMEIs in the table devices of DATABASE_URL; continuing: {error}"
            );
            return Ok(());
        }
    };
    if found > 0 && !force {
        return Err(CommandError::Failed(format!(
            "the table devices holds {found} IMEIs of the fleet: choose others with --first-device, or send anyway with --force"
        )));
    }
    Ok(())
}

/// The number of addresses that have enough ports for a fleet.
pub(super) fn sources(devices: u32) -> u16 {
    u16::try_from(devices.div_ceil(DEVICES_AN_ADDRESS)).unwrap_or(u16::MAX)
}

/// Raises the file limit: each connection needs a file.
pub(super) fn raise_file_limit(connections: u64) -> Result<(), CommandError> {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    if connections + OTHER_FILES > files {
        return Err(CommandError::Failed(format!(
            "--devices requires {connections} open files, but the limit (ulimit -Hn) is {files}"
        )));
    }
    Ok(())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("expected a number above 0".into()),
    }
}

/// An address has about 28,000 ports for connections to one other address, and some of them are still closing.
const DEVICES_AN_ADDRESS: u32 = 20_000;
const OTHER_FILES: u64 = 64;
/// Room for a clock that is ahead and for a slow run.
const MARGIN: Duration = Duration::from_hours(1);
/// Even with the clock that is furthest behind, records stay within the 400 days that a service accepts.
const MOST_SPAN: Duration = Duration::from_hours(24 * 190);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_in_the_default_time_window_of_a_service() {
        let now_ms =
            u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
        for span in [Duration::ZERO, Duration::from_hours(3), MOST_SPAN] {
            let start = start_ms(span).unwrap();
            let span_ms = u64::try_from(span.as_millis()).unwrap();
            assert!(start + span_ms + Clocks::MAX_AHEAD_MS < now_ms, "not in the future");
            let oldest = start - Clocks::MAX_BEHIND_MS;
            assert!(now_ms - oldest < 400 * 24 * 3_600_000, "not before the window");
        }
        assert_eq!(start_ms(MOST_SPAN + Duration::from_secs(1)), None);
    }
}
