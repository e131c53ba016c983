//! The settings, checked, and where each value comes from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::lookup::{Lookup, Mistakes, Reader, Source};
use super::{keys, value};
use crate::flags::{RedisAuthority, RedisUrl};
use crate::store::{DatabaseUrl, QuarantineCap, Retention, lanes_max};
use odograph_journal::Limits;

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where rows go.
    pub database_url: DatabaseUrl,
    /// Where flags come from. With `None`, reconciliation alone finds them.
    pub redis_url: Option<RedisUrl>,
    /// The Redis stream of flags.
    pub flags_stream: String,
    /// The consumer group on that stream.
    pub flags_group: String,
    /// The Redis stream of corrections.
    pub corrected_stream: String,
    /// Tracker listener.
    pub listen: SocketAddr,
    /// Metrics and health.
    pub admin_listen: SocketAddr,
    /// Directory of the journal and the embedded store.
    pub data_dir: PathBuf,
    /// When a tracker is told "accepted".
    pub ack_after: AckAfter,
    /// Who may log in.
    pub admission: AdmissionMode,
    /// Bounds of the journal.
    pub journal: Limits,
    /// Maximum bytes of frames in memory, over all sessions.
    pub inflight_max: u32,
    /// Maximum rows in one transaction.
    pub batch_rows: usize,
    /// How long a batch gathers while the store is idle.
    pub batch_linger: Duration,
    /// Connections that write to the database.
    pub lanes: u16,
    /// From the connection to the last byte of the login.
    pub login_timeout: Duration,
    /// From the first to the last byte of a frame.
    pub frame_timeout: Duration,
    /// Longest silence of a tracker.
    pub idle_timeout: Duration,
    /// Maximum connections; with `None`, the file limit decides.
    pub max_connections: Option<usize>,
    /// Maximum connections from one address; `None` for no limit.
    pub max_connections_per_ip: Option<usize>,
    /// How far a device time may be before the receive time.
    pub time_window_past: Duration,
    /// How far a device time may be after the receive time.
    pub time_window_future: Duration,
    /// How long positions and quarantined records are kept.
    pub retention: Retention,
    /// Maximum quarantined records per device and hour of receive time.
    pub quarantine_max_per_hour: QuarantineCap,
    /// How long a stop waits for work in progress.
    pub shutdown_grace: Duration,
    /// Log filter. It is valid.
    pub log: String,
    /// Log lines as text or JSON.
    pub log_format: LogFormat,
}

/// What has to happen before a tracker is told "accepted".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckAfter {
    /// The sync of the journal: an outage of the database is invisible to trackers.
    Journal,
    /// The commit of its batch.
    Commit,
}

/// Who may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionMode {
    /// Every tracker.
    Open,
    /// Those in the table `devices`.
    Registered,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one object per line.
    Json,
}

impl Settings {
    /// Reads settings.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn load(lookup: &Lookup) -> Result<Self, Mistakes> {
        let mut read = Reader::new(lookup);
        let data_dir = read.value(&keys::DATA_DIR, |text| match text {
            "" => Err("expected a directory, not an empty text".to_owned()),
            path => Ok(PathBuf::from(path)),
        });
        let count = |text: &str| value::number(text, 1, 10_000_000);
        let database_url = read
            .optional(&keys::DATABASE_URL, |text| DatabaseUrl::parse(text).map_err(|e| e.to_string()))
            .unwrap_or_else(|| DatabaseUrl::sqlite(data_dir.join("odograph.sqlite")));
        let redis_url = read.optional(&keys::REDIS_URL, |text| RedisUrl::parse(text).map_err(|e| e.to_string()));
        let redis_ca = read.optional(&keys::REDIS_CA, |text| RedisAuthority::read(Path::new(text)));
        let ack_after = read.value(&keys::ACK_AFTER, ack_after);
        let linger = read.optional(&keys::BATCH_LINGER, |t| value::duration(t, Duration::ZERO, 10 * SECOND));
        let lanes = read.optional(&keys::LANES, |text| value::number(text, 1, 16));
        let keep = read.value(&keys::JOURNAL_KEEP, |t| value::duration(t, Duration::ZERO, 10_000 * DAY));
        let settings = Self {
            lanes: lanes.and_then(|lanes| u16::try_from(lanes).ok()).unwrap_or(2).min(lanes_max(&database_url)),
            database_url,
            redis_url: match redis_ca {
                Some(authority) => redis_url.map(|url| url.trusting(authority)),
                None => redis_url,
            },
            flags_stream: read.value(&keys::FLAGS_STREAM, name),
            flags_group: read.value(&keys::FLAGS_GROUP, name),
            corrected_stream: read.value(&keys::CORRECTED_STREAM, name),
            listen: read.value(&keys::LISTEN, address),
            admin_listen: read.value(&keys::ADMIN_LISTEN, address),
            ack_after,
            admission: read.value(&keys::ADMISSION, admission),
            journal: read.value(&keys::JOURNAL_MAX_SIZE, |text| {
                let bytes = value::size(text, MIB, 1 << 50)?;
                Limits::new(bytes, keep).map_err(|e| e.to_string())
            }),
            inflight_max: read.value(&keys::INFLIGHT_MAX, |text| {
                value::size(text, MIB, 2048 * MIB).map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX))
            }),
            batch_rows: read.value(&keys::BATCH_ROWS, |text| value::number(text, 1, 1_000_000)),
            batch_linger: linger.unwrap_or(match ack_after {
                AckAfter::Journal => Duration::from_millis(50),
                AckAfter::Commit => Duration::from_millis(5),
            }),
            login_timeout: read.value(&keys::LOGIN_TIMEOUT, |t| value::duration(t, SECOND / 10, HOUR)),
            frame_timeout: read.value(&keys::FRAME_TIMEOUT, |t| value::duration(t, SECOND / 10, HOUR)),
            idle_timeout: read.value(&keys::IDLE_TIMEOUT, |t| value::duration(t, SECOND / 10, 168 * HOUR)),
            max_connections: read.optional(&keys::MAX_CONNECTIONS, count),
            max_connections_per_ip: read.optional(&keys::MAX_CONNECTIONS_PER_IP, count),
            time_window_past: read.value(&keys::TIME_WINDOW_PAST, |t| value::duration(t, HOUR, 100_000 * DAY)),
            time_window_future: read
                .value(&keys::TIME_WINDOW_FUTURE, |t| value::duration(t, Duration::ZERO, 100_000 * DAY)),
            retention: Retention {
                positions: read.value(&keys::RETENTION, age),
                quarantine: read.value(&keys::QUARANTINE_RETENTION, age),
            },
            quarantine_max_per_hour: read.value(&keys::QUARANTINE_MAX_PER_HOUR, quarantine_cap),
            shutdown_grace: read.value(&keys::SHUTDOWN_GRACE, |t| value::duration(t, Duration::ZERO, HOUR)),
            log: read.value(&keys::LOG, |text| {
                EnvFilter::try_new(text)
                    .map(|_| text.to_owned())
                    .map_err(|e| format!("expected a log filter such as info: {e}"))
            }),
            log_format: read.value(&keys::LOG_FORMAT, log_format),
            data_dir,
        };
        read.finish(settings)
    }

    /// The effective value of every setting and where it comes from. Secrets are masked.
    #[must_use]
    pub fn show(&self, lookup: &Lookup) -> Vec<(&'static str, String, Source)> {
        let shown = |key: &'static keys::SettingKey| {
            let (text, source) = lookup.get(key).map_or((key.default, Source::Default), |(text, s)| (Some(text), s));
            let text = match key.name {
                "database_url" => self.database_url.to_string(),
                "lanes" => self.lanes.to_string(),
                "batch_linger" => humantime::format_duration(self.batch_linger).to_string(),
                "redis_url" => self.redis_url.as_ref().map_or("none".to_owned(), ToString::to_string),
                _ => text.unwrap_or("none").to_owned(),
            };
            (key.name, text, source)
        };
        keys::ALL.iter().map(|key| shown(key)).collect()
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an address such as 0.0.0.0:5027".to_owned())
}

/// A name in Redis.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_MAX || text.contains(char::is_whitespace) {
        return Err("expected a name of 1 to 200 characters without spaces".to_owned());
    }
    Ok(text.to_owned())
}

/// How long data is kept, or `none` for forever. At least an hour: a mistyped unit must not empty the table.
fn age(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "none" => Ok(None),
        age => value::duration(age, HOUR, 100_000 * DAY).map(Some),
    }
}

/// A number, or `none` for no limit.
fn quarantine_cap(text: &str) -> Result<QuarantineCap, String> {
    match text {
        "none" => Ok(None),
        number => value::number(number, 1, 10_000_000).map(|cap| u32::try_from(cap).ok()),
    }
}

fn ack_after(text: &str) -> Result<AckAfter, String> {
    match text {
        "commit" => Ok(AckAfter::Commit),
        "journal" => Ok(AckAfter::Journal),
        _ => Err("expected journal or commit".to_owned()),
    }
}

fn admission(text: &str) -> Result<AdmissionMode, String> {
    match text {
        "open" => Ok(AdmissionMode::Open),
        "registered" => Ok(AdmissionMode::Registered),
        _ => Err("expected open or registered".to_owned()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected text or json".to_owned()),
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const MIB: u64 = 1 << 20;
const NAME_MAX: usize = 200;
