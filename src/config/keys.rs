//! The names, defaults and meanings of all settings: the one table behind reading, `config show` and `docs/settings.md`.

/// One setting.
#[derive(Debug)]
pub struct SettingKey {
    /// Its name in the file.
    pub name: &'static str,
    /// Its variable in the environment.
    pub variable: &'static str,
    /// The default; `None` if the default is not a fixed text.
    pub default: Option<&'static str>,
    /// What it means.
    pub about: &'static str,
}

macro_rules! keys {
    ($($constant:ident = $name:literal, $variable:literal, $default:expr, $about:literal;)*) => {
        $(pub(super) const $constant: SettingKey = SettingKey { name: $name, variable: $variable, default: $default, about: $about };)*
        /// Every setting.
        pub const ALL: &[&SettingKey] = &[$(&$constant),*];
    };
}

keys! {
    DATABASE_URL = "database_url", "DATABASE_URL", None,
        "postgres://user:password@host/database or sqlite://file; default: a SQLite file in the data directory";
    REDIS_URL = "redis_url", "REDIS_URL", None,
        "redis://user:password@host:port/0, or rediss:// for TLS; default: none, only reconciliation finds flags";
    REDIS_CA = "redis_ca", "ODOGRAPH_REDIS_CA", None,
        "PEM file with the authority of a rediss:// server; default: the authorities of the system";
    LISTEN = "listen", "ODOGRAPH_LISTEN", Some("0.0.0.0:5027"), "address of the tracker listener";
    ADMIN_LISTEN = "admin_listen", "ODOGRAPH_ADMIN_LISTEN", Some("127.0.0.1:9464"), "address for metrics and health";
    DATA_DIR = "data_dir", "ODOGRAPH_DATA_DIR", Some("./odograph-data"), "directory of the journal and the embedded store";
    // Trackers do not notice an outage of the database.
    ACK_AFTER = "ack_after", "ODOGRAPH_ACK_AFTER", Some("journal"),
        "when a tracker is told \"accepted\": after the journal's sync, or after the commit on hosts without a durable disk";
    ADMISSION = "admission", "ODOGRAPH_ADMISSION", Some("open"),
        "who may log in: open for every tracker, registered for those in the table devices";
    // An hour of 1,000 trackers that send a kilobyte per second.
    JOURNAL_MAX_SIZE = "journal_max_size", "ODOGRAPH_JOURNAL_MAX_SIZE", Some("4GiB"),
        "maximum size of the journal, 1MiB or more; when it is full of uncommitted frames, sockets are not read";
    JOURNAL_KEEP = "journal_keep", "ODOGRAPH_JOURNAL_KEEP", Some("24h"),
        "how long committed frames are kept for replay, 0s to 10000d; deleted earlier if the journal needs room";
    // Every connected tracker of a large fleet can have a frame in memory, and an outage of the database fills this.
    INFLIGHT_MAX = "inflight_max", "ODOGRAPH_INFLIGHT_MAX", Some("256MiB"),
        "maximum size of frames in memory over all sessions, 1MiB to 2GiB";
    // A larger transaction reaches the time limit of the store, and gained nothing in measurements.
    BATCH_ROWS = "batch_rows", "ODOGRAPH_BATCH_ROWS", Some("50000"), "maximum rows in one transaction, 1 to 1000000";
    // With the journal nobody waits for the commit, and fewer transactions cost the database less. Without it, the linger is
    // short compared to what a tracker waits, and long enough to collect the frames of one burst.
    BATCH_LINGER = "batch_linger", "ODOGRAPH_BATCH_LINGER", None,
        "how long a batch collects frames while the store is idle, 0s to 10s; default: 50ms, or 5ms with ack_after = commit";
    // While one waits for its commit, the other one works: more than one connection can do.
    LANES = "lanes", "ODOGRAPH_LANES", None,
        "connections that write to the database, each for its share of the devices, 1 to 16; default: 2 (always 1 with SQLite)";
    LOGIN_TIMEOUT = "login_timeout", "ODOGRAPH_LOGIN_TIMEOUT", Some("15s"),
        "longest time from the connection to the end of the login, 100ms to 1h";
    FRAME_TIMEOUT = "frame_timeout", "ODOGRAPH_FRAME_TIMEOUT", Some("60s"),
        "longest time from the first to the last byte of a frame, 100ms to 1h";
    // Longer than the open link timeout and ping interval of trackers: closing earlier would cut their command channel.
    IDLE_TIMEOUT = "idle_timeout", "ODOGRAPH_IDLE_TIMEOUT", Some("45m"), "longest silence of a tracker, 100ms to 168h";
    MAX_CONNECTIONS = "max_connections", "ODOGRAPH_MAX_CONNECTIONS", None,
        "maximum number of connections, 1 or more; default: from the file limit";
    MAX_CONNECTIONS_PER_IP = "max_connections_per_ip", "ODOGRAPH_MAX_CONNECTIONS_PER_IP", None,
        "maximum number of connections per address, 1 or more; default: none, because whole fleets share a carrier's address";
    // A stray date would create a chunk of its own. A tracker that spent a winter in a garage is still accepted.
    TIME_WINDOW_PAST = "time_window_past", "ODOGRAPH_TIME_WINDOW_PAST", Some("400d"),
        "how far a device time may be before the receive time, 1h or more; records beyond go to the quarantine";
    TIME_WINDOW_FUTURE = "time_window_future", "ODOGRAPH_TIME_WINDOW_FUTURE", Some("1h"),
        "how far a device time may be after the receive time, 0s or more; records beyond go to the quarantine";
    FLAGS_STREAM = "flags_stream", "ODOGRAPH_FLAGS_STREAM", Some("odograph:position-flags"),
        "Redis stream of faulty flags; unreadable entries go to the stream of the same name with :dead appended";
    FLAGS_GROUP = "flags_group", "ODOGRAPH_FLAGS_GROUP", Some("odograph"), "consumer group on that stream";
    CORRECTED_STREAM = "corrected_stream", "ODOGRAPH_CORRECTED_STREAM", Some("odograph:positions-corrected"),
        "Redis stream that announces which positions changed";
    RETENTION = "retention", "ODOGRAPH_RETENTION", Some("none"),
        "how long positions and messages are kept by device time, such as 400d, 1h or more; whole chunks are dropped; or none";
    // Long enough to look at records that were quarantined before a holiday.
    QUARANTINE_RETENTION = "quarantine_retention", "ODOGRAPH_QUARANTINE_RETENTION", Some("90d"),
        "how long quarantined records are kept, 1h or more; or none to keep them forever";
    // Enough to inspect every record of a tracker whose clock is wrong for an hour. A tracker that sends nothing but rubbish
    // does not fill the disk.
    QUARANTINE_MAX_PER_HOUR = "quarantine_max_per_hour", "ODOGRAPH_QUARANTINE_MAX_PER_HOUR", Some("1000"),
        "maximum quarantined records per device and hour, or none; further ones are only counted, the journal still has them; no limit without a journal";
    SHUTDOWN_GRACE = "shutdown_grace", "ODOGRAPH_SHUTDOWN_GRACE", Some("20s"),
        "how long a stop waits for work in progress, 0s to 1h";
    LOG = "log", "ODOGRAPH_LOG", Some("info"), "log filter: a level, or target=level pairs";
    LOG_FORMAT = "log_format", "ODOGRAPH_LOG_FORMAT", Some("text"), "format of log lines: text or json";
}
