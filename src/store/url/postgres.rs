//! A PostgreSQL URL, and what every session of ours sets whatever the URL says.

use std::fmt;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio_postgres::config::{Host, SslMode};

use super::InvalidDatabaseUrl;

/// One or more hosts, who logs in, and the options of a session.
#[derive(Clone)]
pub struct PostgresUrl {
    /// Everything but the session options.
    config: tokio_postgres::Config,
    options: Vec<(String, String)>,
}

impl PostgresUrl {
    pub(super) fn parse(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        check_separators(url)?;
        let mut config: tokio_postgres::Config =
            without_tls_parameters(url)?.parse().map_err(InvalidDatabaseUrl::Malformed)?;
        let (hosts, addresses, ports) =
            (config.get_hosts().len(), config.get_hostaddrs().len(), config.get_ports().len());
        let targets = hosts.max(addresses);
        if targets == 0 {
            return Err(InvalidDatabaseUrl::NoHost);
        }
        if (hosts > 0 && addresses > 0 && hosts != addresses) || (ports > 1 && ports != targets) {
            return Err(InvalidDatabaseUrl::Hosts);
        }
        if config.get_password().is_some_and(|password| std::str::from_utf8(password).is_err()) {
            return Err(InvalidDatabaseUrl::Password);
        }
        let options = parse_options(config.get_options().unwrap_or_default())?;

        // Neither client is built with TLS, so nothing needs to be tried.
        config.ssl_mode(SslMode::Disable);
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION_NAME);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(KEEPALIVE_RETRIES);
        Ok(Self { config, options })
    }

    /// For a connection that writes batches: every wait in it is bounded.
    #[must_use]
    pub fn config(&self) -> tokio_postgres::Config {
        let mut text = String::new();
        for (name, value) in self.session(&WRITER_OPTIONS) {
            text.push_str(if text.is_empty() { "-c " } else { " -c " });
            text.push_str(name);
            text.push('=');
            for letter in value.chars() {
                if letter.is_whitespace() || letter == '\\' {
                    text.push('\\');
                }
                text.push(letter);
            }
        }
        let mut config = self.config.clone();
        config.options(text);
        config
    }

    /// For migrations, one for each host of the URL, in its order: a statement may take as long as it needs.
    pub fn connect_options(&self) -> impl Iterator<Item = PgConnectOptions> {
        let targets = self.config.get_hosts().len().max(self.config.get_hostaddrs().len());
        (0..targets).map(|target| self.connect_options_of(target))
    }

    /// How long connecting may take, over all hosts.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        let targets = u32::try_from(self.connect_options().count()).unwrap_or(u32::MAX);
        self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT).saturating_mul(targets)
    }

    fn connect_options_of(&self, target: usize) -> PgConnectOptions {
        let config = &self.config;
        let ports = config.get_ports();
        // An empty password is what keeps PGPASSWORD out: the URL alone decides, for both clients.
        let password = config.get_password().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(ports.get(target).or(ports.first()).copied().unwrap_or(DEFAULT_PORT))
            .password(password)
            .ssl_mode(PgSslMode::Disable)
            .application_name(config.get_application_name().unwrap_or(APPLICATION_NAME))
            .options(self.session(&MIGRATION_OPTIONS))
            // A slow migration would be logged with its whole text.
            .disable_statement_logging();
        options = match (config.get_hostaddrs().get(target), config.get_hosts().get(target)) {
            (Some(address), _) => options.host(&address.to_string()),
            (None, Some(Host::Tcp(name))) => options.host(name),
            (None, Some(Host::Unix(path))) => options.socket(path),
            (None, None) => options,
        };
        if let Some(user) = config.get_user() {
            options = options.username(user);
        }
        match config.get_dbname().or(config.get_user()) {
            Some(database) => options.database(database),
            None => options,
        }
    }

    /// Options of a session: ours, those of the URL, and those that nobody may weaken. The last one of a name wins.
    fn session<'a>(&'a self, ours: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let asked = self.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        ours.iter().copied().chain(asked).chain(FIXED_OPTIONS)
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            let password = if self.config.get_password().is_some() { ":_" } else { "" };
            write!(f, "{}{password}@", user.escape_debug())?;
        }
        let targets = self.config.get_hosts().len().max(self.config.get_hostaddrs().len());
        for target in 0..targets {
            f.write_str(if target == 0 { "" } else { "," })?;
            match (self.config.get_hosts().get(target), self.config.get_hostaddrs().get(target)) {
                (Some(Host::Tcp(name)), _) if name.contains(':') => write!(f, "[{}]", name.escape_debug())?,
                (Some(Host::Tcp(name)), _) => write!(f, "{}", name.escape_debug())?,
                (Some(Host::Unix(path)), _) => write!(f, "{}", path.display())?,
                (None, Some(address)) => write!(f, "{address}")?,
                (None, None) => {}
            }
            let ports = self.config.get_ports();
            write!(f, ":{}", ports.get(target).or(ports.first()).unwrap_or(&DEFAULT_PORT))?;
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default().escape_debug())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// Refuses a URL whose parts can be told apart in two ways: a piece of the password would then pass for a host, a database
/// or a parameter, and be shown as such.
fn check_separators(url: &str) -> Result<(), InvalidDatabaseUrl> {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()).unwrap_or_default();
    let in_its_place = authority.matches('@').count();
    if in_its_place > 1 || url.matches('@').count() > in_its_place {
        return Err(InvalidDatabaseUrl::Separators);
    }
    Ok(())
}

/// Checks the names of the parameters, and takes out those about TLS: the client's parser does not know them all.
fn without_tls_parameters(url: &str) -> Result<String, InvalidDatabaseUrl> {
    let Some((front, query)) = url.split_once('?') else { return Ok(url.to_owned()) };
    let mut kept = Vec::new();
    for (index, parameter) in query.split('&').enumerate() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "sslmode" => match value {
                "disable" | "allow" | "prefer" => {}
                "require" | "verify-ca" | "verify-full" => return Err(InvalidDatabaseUrl::Tls),
                _ => return Err(InvalidDatabaseUrl::SslMode),
            },
            "sslrootcert" | "sslcert" | "sslkey" | "sslnegotiation" => return Err(InvalidDatabaseUrl::Tls),
            "" if value.is_empty() => {}
            known if PARAMETERS.contains(&known) => kept.push(parameter),
            _ => return Err(InvalidDatabaseUrl::Parameter(index + 1)),
        }
    }
    Ok(if kept.is_empty() { front.to_owned() } else { format!("{front}?{}", kept.join("&")) })
}

/// Reads `-c name=value -c …`; a backslash keeps the character behind it, as the server has it.
fn parse_options(text: &str) -> Result<Vec<(String, String)>, InvalidDatabaseUrl> {
    let mut words = vec![String::new()];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, words.last_mut()) {
            ('\\', Some(word)) => word.extend(letters.next()),
            (space, _) if space.is_ascii_whitespace() => words.push(String::new()),
            (_, Some(word)) => word.push(letter),
            (_, None) => {}
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut options = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
            Some("") => words.next().ok_or(InvalidDatabaseUrl::Options)?,
            Some(setting) => setting.to_owned(),
            None => return Err(InvalidDatabaseUrl::Options),
        };
        let (name, value) = setting.split_once('=').ok_or(InvalidDatabaseUrl::Options)?;
        options.push((name.to_owned(), value.to_owned()));
    }
    Ok(options)
}

/// Every parameter of a PostgreSQL URL, beside the ones that need TLS.
pub(super) const PARAMETERS: [&str; 11] = [
    "sslmode",
    "application_name",
    "connect_timeout",
    "options",
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "target_session_attrs",
];

const APPLICATION_NAME: &str = "odograph";
const DEFAULT_PORT: u16 = 5432;
/// A server that is there answers in milliseconds; trackers wait meanwhile, and give up after about half a minute.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Sent and not acknowledged for so long: the peer or the way to it is gone. Without it Linux tries for 15 minutes.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Finds out about a dead peer within about a minute while nothing is sent, and keeps middle boxes awake.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 3;

/// A lock is held for one transaction, which is a second at most; one held longer is somebody at maintenance, and the
/// batch is better tried again than left to fill the connection's time. No statement of a batch takes 45 s on a server
/// that keeps up; below the client's bound for a commit, so that the server has let go of its locks when the client
/// tries again. A backend whose client is gone must not keep locks either, in a transaction or in a statement. Sorting a
/// batch needs about 20 MB; with PostgreSQL's 4 MB it would go through files.
const WRITER_OPTIONS: [(&str, &str); 5] = [
    ("lock_timeout", "10s"),
    ("statement_timeout", "45s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("client_connection_check_interval", "2s"),
    ("work_mem", "64MB"),
];
/// Making a hypertable moves the rows that are there, which takes what it takes. But waiting behind a long reader for an
/// exclusive lock stops everyone else, so that is bounded.
const MIGRATION_OPTIONS: [(&str, &str); 2] = [("lock_timeout", "60s"), ("statement_timeout", "0")];
/// The promise hangs on the first: a commit that was answered survives a crash of the server.
const FIXED_OPTIONS: [(&str, &str); 2] = [("synchronous_commit", "on"), ("TimeZone", "UTC")];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> PostgresUrl {
        PostgresUrl::parse(url).unwrap()
    }

    #[test]
    fn both_clients_get_the_same_parts() {
        let url = parse(
            "postgresql://o%40do:p%3Aw%2F%3F@[::1]:6000/tele%20metry?application_name=a%26b&sslmode=allow&connect_timeout=7",
        );
        let (config, options) = (url.config(), url.connect_options().next().unwrap());
        assert_eq!((config.get_user(), options.get_username()), (Some("o@do"), "o@do"));
        assert_eq!(config.get_password(), Some(&b"p:w/?"[..]));
        assert_eq!((config.get_hosts(), options.get_host()), (&[Host::Tcp("::1".to_owned())][..], "::1"));
        assert_eq!((config.get_ports(), options.get_port()), (&[6000][..], 6000));
        assert_eq!((config.get_dbname(), options.get_database()), (Some("tele metry"), Some("tele metry")));
        assert_eq!((config.get_application_name(), options.get_application_name()), (Some("a&b"), Some("a&b")));
        assert_eq!(url.connect_timeout(), Duration::from_secs(7));
        assert_eq!(url.to_string(), "postgres://o@do:_@[::1]:6000/tele metry");
    }

    #[test]
    fn every_host_of_a_list_can_be_reached_by_both() {
        let url = parse("postgres://u@a,b:6000/db?target_session_attrs=read-write");
        let hosts: Vec<_> = url.connect_options().map(|to| (to.get_host().to_owned(), to.get_port())).collect();
        assert_eq!(hosts, [("a".to_owned(), 5432), ("b".to_owned(), 6000)]);
        assert_eq!(url.connect_timeout(), 2 * CONNECT_TIMEOUT);
        assert!(matches!(PostgresUrl::parse("postgres://u@a/db?port=1,2,3"), Err(InvalidDatabaseUrl::Hosts)));
        assert!(matches!(PostgresUrl::parse("postgres:///db"), Err(InvalidDatabaseUrl::NoHost)));
        let socket = parse("postgres://%2Frun%2Fpostgresql/db").connect_options().next().unwrap();
        assert_eq!(socket.get_socket().unwrap().to_str(), Some("/run/postgresql"));
    }

    #[test]
    fn the_url_may_change_session_options_but_not_weaken_durability() {
        let url =
            parse("postgres://u@h/db?options=-c%20lock_timeout%3D3s%20-csynchronous_commit%3Doff%20--x.y%3Da%5C%20b");
        let config = url.config();
        let text = config.get_options().unwrap();
        let place = |part: &str| text.rfind(part).unwrap_or_else(|| panic!("{part} in {text}"));
        assert!(place("lock_timeout=3s") > place("lock_timeout=10s"));
        assert!(place("synchronous_commit=on") > place("synchronous_commit=off"));
        assert!(text.contains(r"-c x.y=a\ b "));
        let options = url.connect_options().next().unwrap();
        assert!(options.get_options().unwrap().contains(r"-c x.y=a\ b "));
        assert!(options.get_options().unwrap().ends_with("-c synchronous_commit=on -c TimeZone=UTC"));
        assert!(matches!(PostgresUrl::parse("postgres://h/db?options=-d"), Err(InvalidDatabaseUrl::Options)));
    }

    #[test]
    fn what_needs_tls_is_refused_and_not_silently_sent_in_clear() {
        for query in ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full", "user=a&sslrootcert=/ca.pem"] {
            let refused = PostgresUrl::parse(&format!("postgres://h/db?{query}"));
            assert!(matches!(refused, Err(InvalidDatabaseUrl::Tls)), "{query}");
        }
        assert!(matches!(PostgresUrl::parse("postgres://h/db?sslmode=on"), Err(InvalidDatabaseUrl::SslMode)));
    }

    #[test]
    fn nothing_shows_the_password() {
        for url in ["postgres://u:hunter2@h/db", "postgres://h/db?password=hunter2&user=u"] {
            let shown = format!("{0} {0:?}", parse(url));
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("u:_@h"), "{shown}");
        }
        for url in [
            "postgres://u:p@ss?hunter2=x@h/db",
            "postgres://u:p@hunter2:hunter2@h/db",
            "postgres://u:p@hunter2/x@h/db",
            "postgres://u:p/hunter2@h/db",
            "postgres://h/db?password=hunter2@x",
            "postgres://u:p@h/db?hunter2",
            "postgres://u:p@[hunter2/db",
        ] {
            let error = PostgresUrl::parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
