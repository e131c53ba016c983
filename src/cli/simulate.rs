//! `odograph simulate`: a fleet against a running service, and the audit of what it was told.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::CommandError;
use super::live::{Live, answered, bar, grouped};
use super::setup::runtime;
use crate::store::DatabaseUrl;
use odograph_fleet::audit;
use odograph_fleet::audit::Findings;
use odograph_fleet::{Clocks, Plan, Progress, registered, test_imei};

/// Send positions to a service as a fleet of trackers would
///
/// Every second tracker is an FMB920 with Codec 8, the others are FMB003 with Codec 8 Extended. They log in, send newest
/// records first and wait for each answer; answers get lost, and their records come again, packed with newer ones. The last
/// line of standard output is a JSON object with what was sent, what was acknowledged, and what the audit found.
///
/// IMEIs are of a test range that no manufacturer gives out (001000000000000 and on). Where such a one stands in the table
/// `devices` of the database named by `--verify` or `DATABASE_URL`, nothing is sent without `--force`.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
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
    /// Close the connection after so many packets and make another; 0 never
    #[arg(long, default_value_t = 100)]
    reconnect_every: u32,
    /// Which clocks are wrong: none; a few, within what a service takes by default; or some of 2004, for quarantine
    #[arg(long, value_enum, default_value_t = WrongClocks::Few)]
    wrong_clocks: WrongClocks,
    /// Number of the first tracker in the test range of IMEIs; by default drawn, so that runs do not meet
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    first_device: Option<u32>,
    /// Connect from so many addresses, 127.0.0.1 and on, to a target on loopback; by default one for 20,000 trackers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    sources: Option<u16>,
    /// Audit this database afterwards: each acknowledged record exactly once, with the values sent
    #[arg(long, value_name = "DATABASE_URL")]
    verify: Option<String>,
    /// Let the audit wait for missing records so long after the last one came
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// Send although IMEIs of the fleet stand in the table `devices`
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum WrongClocks {
    None,
    Few,
    Stray,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let verify = arguments.verify.as_deref().map(DatabaseUrl::parse).transpose();
    let verify = verify.map_err(|wrong| CommandError::Usage(format!("odograph: --verify: {wrong}")))?;
    let plan = plan(arguments)?;
    raise_file_limit(plan.devices.into())?;
    runtime()?.block_on(async {
        refuse_registered(verify.as_ref(), &plan, arguments.force).await?;
        drive(plan, verify.as_ref(), arguments.settle).await
    })
}

async fn drive(plan: Plan, verify: Option<&DatabaseUrl>, settle: Duration) -> Result<(), CommandError> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|wrong| CommandError::from_error(&wrong))?;
    let progress = Arc::new(Progress::default());
    let mut live = Live::new();
    let (first, last) = (test_imei(plan.first_device), test_imei(plan.first_device + plan.devices - 1));
    live.say(&format!(
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
            () = tokio::time::sleep(Duration::from_secs(1)) => live.show(&state(&plan, &progress, begun)),
        }
    };
    live.show(&state(&plan, &progress, begun));
    live.say(&format!("answered: {}", answered(&progress)));
    let (sent, acknowledged, reconnects) = progress.read();
    let mut outcome = serde_json::json!({ "sent": sent, "acknowledged": acknowledged, "reconnects": reconnects });
    let Some(url) = verify else {
        println!("{outcome}");
        return Ok(());
    };
    live.show("audit: reading every row of the fleet back");
    let findings = tokio::select! {
        findings = audit::settled(url, &told, settle) => findings.map_err(|wrong| CommandError::from_error(&*wrong))?,
        _ = interrupt.recv() => return Err(CommandError::Failed("interrupted before the audit was done".into())),
    };
    live.say(&verdict(&findings));
    outcome["audit"] = serde_json::json!({
        "acknowledged": findings.acknowledged, "stored": findings.stored, "missing": findings.missing,
        "twice": findings.twice, "wrong": findings.wrong, "unknown": findings.unknown,
        "quarantined": findings.quarantined,
    });
    println!("{outcome}");
    judge(&findings)
}

/// What the audit found, in words.
pub(super) fn verdict(findings: &Findings) -> String {
    let Findings { acknowledged, missing, twice, wrong, unknown, quarantined, stored: _, examples } = findings;
    let kept = if *quarantined > 0 { format!("; {} in quarantine", grouped(*quarantined)) } else { String::new() };
    let text = format!(
        "audit: {} records acknowledged; {missing} missing, {twice} twice, {wrong} wrong, {unknown} that nobody sent{kept}",
        grouped(*acknowledged)
    );
    examples.iter().fold(text, |text, example| format!("{text}\n  {example}"))
}

pub(super) fn judge(findings: &Findings) -> Result<(), CommandError> {
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
    let wrong = |what: String| CommandError::Usage(format!("odograph: --target {}: {what}", arguments.target));
    let mut addresses = arguments.target.to_socket_addrs().map_err(|e| wrong(e.to_string()))?;
    let target: SocketAddr = addresses.next().ok_or_else(|| wrong("no address".into()))?;
    let on_loopback = matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback());
    let sources = match arguments.sources {
        Some(2..) if !on_loopback => return Err(wrong("--sources needs a target in 127.0.0.0/8".into())),
        Some(sources) => sources,
        None if on_loopback => sources(arguments.devices),
        None => 1,
    };
    let clocks = match arguments.wrong_clocks {
        WrongClocks::None => Clocks::Right,
        WrongClocks::Few => Clocks::FewWrong,
        WrongClocks::Stray => Clocks::SomeStray,
    };
    let span = Duration::from_secs(u64::from(arguments.records) * u64::from(arguments.packets));
    let start_ms = start_ms(span).ok_or_else(|| {
        let days = span.as_secs() / 86_400;
        CommandError::Usage(format!(
            "odograph: --packets: a tracker makes a record a second, so this is {days} days of them; at most {} are taken",
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

/// Device time of the first record, such that after a span of records no clock is ahead of what a service takes; none where
/// the first would lie too far behind.
pub(super) fn start_ms(span: Duration) -> Option<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = now.checked_sub(span + Duration::from_millis(Clocks::MAX_AHEAD_MS) + MARGIN)?;
    (span <= MOST_SPAN).then(|| u64::try_from(start.as_millis()).unwrap_or(0))
}

/// Fails before anything is sent that the audit could not read afterwards.
async fn refuse_registered(verify: Option<&DatabaseUrl>, plan: &Plan, force: bool) -> Result<(), CommandError> {
    let named = std::env::var("DATABASE_URL").ok().and_then(|url| DatabaseUrl::parse(&url).ok());
    let Some(url) = verify.or(named.as_ref()) else { return Ok(()) };
    let found = match registered(url, plan).await {
        Ok(found) => found,
        Err(wrong) if verify.is_some() => return Err(CommandError::from_error(&*wrong)),
        Err(wrong) => {
            eprintln!("odograph: cannot look for the fleet's IMEIs in devices of DATABASE_URL, and goes on: {wrong}");
            return Ok(());
        }
    };
    if found > 0 && !force {
        return Err(CommandError::Failed(format!(
            "{found} IMEIs of the fleet stand in the table devices: --first-device takes others, --force sends all the same"
        )));
    }
    Ok(())
}

/// So many addresses have ports enough for a fleet.
pub(super) fn sources(devices: u32) -> u16 {
    u16::try_from(devices.div_ceil(DEVICES_AN_ADDRESS)).unwrap_or(u16::MAX)
}

/// Each connection holds a file.
pub(super) fn raise_file_limit(connections: u64) -> Result<(), CommandError> {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    if connections + OTHER_FILES > files {
        return Err(CommandError::Failed(format!(
            "--devices needs {connections} open files, and the limit (ulimit -Hn) is {files}"
        )));
    }
    Ok(())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("must be a number above 0".into()),
    }
}

/// An address has about 28,000 ports for connections to one other, and some of them are still closing.
const DEVICES_AN_ADDRESS: u32 = 20_000;
const OTHER_FILES: u64 = 64;
/// A clock may be ahead; a run may be slow.
const MARGIN: Duration = Duration::from_hours(1);
/// With the clock furthest behind, a service's 400 days are not left.
const MOST_SPAN: Duration = Duration::from_hours(24 * 190);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_lies_in_the_time_that_a_service_takes_by_default() {
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
