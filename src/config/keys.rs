//! The settings' names, defaults and what they mean: the one table behind reading, `config show` and `docs/settings.md`.

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// Its variable in the environment.
    pub variable: &'static str,
    /// The value where none is given; `None` where the default is no fixed text.
    pub default: Option<&'static str>,
    /// What it means.
    pub about: &'static str,
}

macro_rules! keys {
    ($($constant:ident = $name:literal, $variable:literal, $default:expr, $about:literal;)*) => {
        $(pub(super) const $constant: Key = Key { name: $name, variable: $variable, default: $default, about: $about };)*
        /// Every setting.
        pub const ALL: &[&Key] = &[$(&$constant),*];
    };
}

keys! {
    DATABASE_URL = "database_url", "DATABASE_URL", None,
        "postgres://user:password@host/database or sqlite://file; default: SQLite file in the data directory";
    REDIS_URL = "redis_url", "REDIS_URL", None,
        "redis://user:password@host:port/0, rediss:// for TLS; default: none, flags come by reconciliation alone";
    LISTEN = "listen", "ODOGRAPH_LISTEN", Some("0.0.0.0:5027"), "tracker listener";
    ADMIN_LISTEN = "admin_listen", "ODOGRAPH_ADMIN_LISTEN", Some("127.0.0.1:9464"), "metrics and health";
    DATA_DIR = "data_dir", "ODOGRAPH_DATA_DIR", Some("./odograph-data"), "journal and embedded store";
    // So that an outage of the database is invisible to trackers.
    ACK_AFTER = "ack_after", "ODOGRAPH_ACK_AFTER", Some("journal"),
        "when a tracker is told \"accepted\": journal, or commit on hosts without a durable disk";
    ADMISSION = "admission", "ODOGRAPH_ADMISSION", Some("open"),
        "who may log in: open for every tracker, registered for those in the table devices";
    // An hour of 1,000 trackers that send a kilobyte a second.
    JOURNAL_MAX_SIZE = "journal_max_size", "ODOGRAPH_JOURNAL_MAX_SIZE", Some("4GiB"),
        "bound of the journal; when all of it waits for the database, sockets are not read";
    JOURNAL_KEEP = "journal_keep", "ODOGRAPH_JOURNAL_KEEP", Some("24h"),
        "how long committed frames are kept for replay; given up earlier when room is needed";
    // Every connected tracker of a large fleet can have a frame under way, and an outage of the database fills it.
    INFLIGHT_MAX = "inflight_max", "ODOGRAPH_INFLIGHT_MAX", Some("256MiB"), "frames in memory over all sessions";
    // The store's time for a transaction is spent by then; larger ones gained nothing in measurements.
    BATCH_ROWS = "batch_rows", "ODOGRAPH_BATCH_ROWS", Some("50000"), "most rows in one transaction";
    // Behind the journal nobody waits for the commit, and fewer transactions cost the database less. Else it is short against
    // what a tracker waits, and long enough to gather the frames of one burst.
    BATCH_LINGER = "batch_linger", "ODOGRAPH_BATCH_LINGER", None,
        "how long a batch gathers while the store is idle; default: 50ms, or 5ms with ack_after = commit";
    // While one waits for its commit the other one works: more than one connection can do.
    LANES = "lanes", "ODOGRAPH_LANES", None,
        "connections that write to the database, each for its share of the devices; default: 2 (always 1 with SQLite)";
    LOGIN_TIMEOUT = "login_timeout", "ODOGRAPH_LOGIN_TIMEOUT", Some("15s"), "whole login";
    FRAME_TIMEOUT = "frame_timeout", "ODOGRAPH_FRAME_TIMEOUT", Some("60s"), "first to last byte of a frame";
    // Above the open link timeout and ping interval of trackers: closing earlier would cut their command channel.
    IDLE_TIMEOUT = "idle_timeout", "ODOGRAPH_IDLE_TIMEOUT", Some("45m"), "nothing at all from a tracker";
    MAX_CONNECTIONS = "max_connections", "ODOGRAPH_MAX_CONNECTIONS", None, "default: from the file limit";
    MAX_CONNECTIONS_PER_IP = "max_connections_per_ip", "ODOGRAPH_MAX_CONNECTIONS_PER_IP", None,
        "default: none, as whole fleets share one carrier address";
    // A stray date would make a chunk of its own; a tracker that was in a garage for a winter is believed.
    TIME_WINDOW_PAST = "time_window_past", "ODOGRAPH_TIME_WINDOW_PAST", Some("400d"),
        "how far a record's time may lie behind its receive time; beyond: quarantine";
    TIME_WINDOW_FUTURE = "time_window_future", "ODOGRAPH_TIME_WINDOW_FUTURE", Some("1h"),
        "how far it may lie ahead";
    FLAGS_STREAM = "flags_stream", "ODOGRAPH_FLAGS_STREAM", Some("odograph:position-flags"),
        "Redis stream of faulty flags; what cannot be read goes to the same name with :dead behind";
    FLAGS_GROUP = "flags_group", "ODOGRAPH_FLAGS_GROUP", Some("odograph"), "consumer group on it";
    CORRECTED_STREAM = "corrected_stream", "ODOGRAPH_CORRECTED_STREAM", Some("odograph:positions-corrected"),
        "Redis stream that says which positions changed";
    RETENTION = "retention", "ODOGRAPH_RETENTION", Some("none"),
        "how long positions and messages are kept, such as 400d, by device time; whole chunks go";
    // Long enough for somebody to look at what was quarantined before a holiday.
    QUARANTINE_RETENTION = "quarantine_retention", "ODOGRAPH_QUARANTINE_RETENTION", Some("90d"),
        "how long quarantined records are kept; none keeps them for ever";
    // A tracker whose clock is wrong for an hour can be looked at whole; one that sends nothing but rubbish fills no disk.
    QUARANTINE_MAX_PER_HOUR = "quarantine_max_per_hour", "ODOGRAPH_QUARANTINE_MAX_PER_HOUR", Some("1000"),
        "most records of a device and hour that are kept in quarantine; others are counted, and the journal has them; or none. Without a journal all are kept";
    SHUTDOWN_GRACE = "shutdown_grace", "ODOGRAPH_SHUTDOWN_GRACE", Some("20s"), "how long a stop waits for what is under way";
    LOG = "log", "ODOGRAPH_LOG", Some("info"), "log filter: a level, or target=level pairs";
    LOG_FORMAT = "log_format", "ODOGRAPH_LOG_FORMAT", Some("text"), "text or json";
}
