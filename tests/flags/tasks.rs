//! The tasks for flags in this process, and the stream to which a test writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use odograph::flags::{FlagConfig, FlagMetrics, FlagTasks, Pace, RedisUrl, spawn_with};
use odograph::health::Health;
use odograph::metrics::Registry;
use odograph::store::{DatabaseUrl, FlagChange, FlagState, Window};
use odograph_testkit::{PATIENCE, until};
use redis::Value;
use redis::aio::MultiplexedConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

/// The settings of the service, with short waits.
pub(crate) const PACE: Pace = Pace {
    block: Duration::from_millis(200),
    group: 64,
    gather: Duration::from_millis(1),
    claim_idle: Duration::from_millis(300),
    claim_every: Duration::from_millis(100),
    reconcile_every: Duration::from_hours(1),
    publish_every: Duration::from_millis(100),
    watch_every: Duration::from_millis(50),
    forget_after: Duration::from_hours(1),
};

/// The Redis server of the tests.
pub(crate) fn shared_redis() -> String {
    std::env::var("REDIS_URL")
        .expect("REDIS_URL must name a Redis: run scripts/test, or eval \"$(scripts/services env)\"")
}

pub(crate) struct Flags {
    pub(crate) registry: Registry,
    pub(crate) health: Arc<Health>,
    tasks: FlagTasks,
}

impl Flags {
    pub(crate) fn start(database: &DatabaseUrl, redis: Option<&str>, stream: &Stream, consumer: &str) -> Self {
        Self::start_at(PACE, database, redis, stream, consumer)
    }

    pub(crate) fn start_at(
        pace: Pace,
        database: &DatabaseUrl,
        redis: Option<&str>,
        stream: &Stream,
        consumer: &str,
    ) -> Self {
        Self::start_with(pace, database, redis.map(|url| RedisUrl::parse(url).unwrap()), stream, consumer)
    }

    pub(crate) fn start_with(
        pace: Pace,
        database: &DatabaseUrl,
        redis: Option<RedisUrl>,
        stream: &Stream,
        consumer: &str,
    ) -> Self {
        let settings = FlagConfig {
            database: database.clone(),
            redis,
            stream: stream.name.clone(),
            group: "odograph".into(),
            consumer: consumer.into(),
            corrected: stream.corrected(),
        };
        let (registry, health) = (Registry::new(), Arc::new(Health::default()));
        let metrics = FlagMetrics::new(&registry);
        let tasks = spawn_with(settings, pace, metrics, Arc::clone(&health), CancellationToken::new()).unwrap();
        Self { registry, health, tasks }
    }

    pub(crate) async fn stop(self) {
        self.tasks.stop().await;
    }

    /// The value of a metric, by its name without prefix and with its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.registry.render();
        let line = text.lines().find_map(|line| line.strip_prefix("odograph_")?.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    }

    pub(crate) async fn until_metric(&self, name: &str, value: f64) {
        until(&format!("{name} to be {value}"), async || (self.metric(name) - value).abs() < 1e-9).await;
    }
}

/// A stream with its own name.
pub(crate) struct Stream {
    pub(crate) name: String,
    url: String,
    connection: Option<MultiplexedConnection>,
}

impl Stream {
    pub(crate) fn new(url: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test:{}:{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { name, url: url.to_owned(), connection: None }
    }

    pub(crate) fn corrected(&self) -> String {
        format!("{}:corrected", self.name)
    }

    pub(crate) fn dead(&self) -> String {
        format!("{}:dead", self.name)
    }

    pub(crate) async fn ask(&mut self, command: &redis::Cmd) -> Value {
        if self.connection.is_none() {
            let client = redis::Client::open(self.url.as_str()).unwrap();
            self.connection = Some(client.get_multiplexed_async_connection().await.unwrap());
        }
        let answer = self.connection.as_mut().unwrap().send_packed_command(command).await;
        answer.and_then(Value::extract_error).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Connects again after the server restarted.
    pub(crate) fn reconnect(&mut self) {
        self.connection = None;
    }

    /// Adds an entry as the Directus hook does.
    pub(crate) async fn add(&mut self, change: &FlagChange) -> String {
        self.add_fields(&fields(change)).await
    }

    pub(crate) async fn add_fields(&mut self, fields: &[(&str, String)]) -> String {
        let mut add = redis::cmd("XADD");
        add.arg(&self.name).arg("*");
        for (name, value) in fields {
            add.arg(name).arg(value);
        }
        redis::from_redis_value(self.ask(&add).await).unwrap()
    }

    /// Entries of this stream, or of another one.
    pub(crate) async fn entries(&mut self, name: &str) -> Vec<Vec<(String, String)>> {
        let answer = self.ask(redis::cmd("XRANGE").arg(name).arg("-").arg("+")).await;
        let entries: Vec<(String, Vec<(String, String)>)> = redis::from_redis_value(answer).unwrap();
        entries.into_iter().map(|(_, fields)| fields).collect()
    }

    /// Entries that were read and not acknowledged. None if there is no group.
    pub(crate) async fn pending(&mut self) -> i64 {
        let groups = self.ask(redis::cmd("EXISTS").arg(&self.name)).await;
        if groups == Value::Int(0) {
            return 0;
        }
        let answer = self.ask(redis::cmd("XPENDING").arg(&self.name).arg("odograph")).await;
        match answer.into_sequence().unwrap().first() {
            Some(Value::Int(pending)) => *pending,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until every entry is delivered and acknowledged.
    pub(crate) async fn until_done(&mut self) {
        let name = self.name.clone();
        let mut groups = redis::cmd("XINFO");
        groups.arg("GROUPS").arg(&name);
        let begun = std::time::Instant::now();
        loop {
            let answer = self.ask(&groups).await;
            let groups: Vec<std::collections::HashMap<String, Value>> = redis::from_redis_value(answer).unwrap();
            if let Some(group) = groups.first() {
                let last: String = redis::from_redis_value(group["last-delivered-id"].clone()).unwrap();
                let unread =
                    redis::cmd("XRANGE").arg(&name).arg(format!("({last}")).arg("+").arg("COUNT").arg(1).clone();
                let unread = self.ask(&unread).await.into_sequence().unwrap();
                if group["pending"] == Value::Int(0) && unread.is_empty() {
                    return;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "entries are left in the stream: {groups:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The fields of an entry.
pub(crate) fn fields(change: &FlagChange) -> Vec<(&'static str, String)> {
    let (op, new) = match &change.state {
        FlagState::Set { window, faulty, reason } => ("update", new(window, *faulty, reason.as_deref())),
        FlagState::Deleted => ("delete", String::new()),
    };
    let old = change.old.map_or(String::new(), |old| self::new(&old, true, None));
    vec![
        ("v", "1".into()),
        ("seq", change.seq.to_string()),
        ("op", op.into()),
        ("flag_id", change.flag.to_string()),
        ("old", old),
        ("new", new),
    ]
}

/// The JSON of `old` and `new`.
pub(crate) fn new(window: &Window, faulty: bool, reason: Option<&str>) -> String {
    let time = |ms: i64| {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
        time.format(&Rfc3339).unwrap()
    };
    serde_json::json!({
        "imei": window.imei().to_string(), "ts_from": time(window.from_ms()), "ts_to": time(window.to_ms()),
        "faulty": faulty, "reason": reason, "user": "1b",
    })
    .to_string()
}
