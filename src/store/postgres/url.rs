//! A PostgreSQL URL, and the session options that we set in addition to it.
//!
//! No library serves: tokio-postgres reads the parts, but drops the TLS parameters, keeps the session options as one
//! text, and shows parts of a malformed URL. Several hosts are supported, and a password is never shown.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::{MakeTls, TlsParameters, TlsSettings};
use super::url_error::{InvalidPostgresUrl, PARAMETERS};
use crate::store::error::store_error::StoreError;

/// Hosts, login, session options and TLS settings.
#[derive(Clone)]
pub struct PostgresUrl {
    /// Everything but the session options.
    config: tokio_postgres::Config,
    options: Vec<(String, String)>,
    tls: TlsSettings,
}

impl PostgresUrl {
    /// Reads a URL. No error shows a part of it.
    pub(crate) fn parse(url: &str) -> Result<Self, InvalidPostgresUrl> {
        check_separators(url)?;
        let (url, tls) = without_tls_parameters(url)?;
        let tls = TlsSettings::of(tls)?;
        let mut config: tokio_postgres::Config = url.parse().map_err(InvalidPostgresUrl::Malformed)?;
        let (hosts, addresses, ports) =
            (config.get_hosts().len(), config.get_hostaddrs().len(), config.get_ports().len());
        let targets = hosts.max(addresses);
        if targets == 0 {
            return Err(InvalidPostgresUrl::NoHost);
        }
        if (hosts > 0 && addresses > 0 && hosts != addresses) || (ports > 1 && ports != targets) {
            return Err(InvalidPostgresUrl::Hosts);
        }
        if config.get_password().is_some_and(|password| std::str::from_utf8(password).is_err()) {
            return Err(InvalidPostgresUrl::Password);
        }
        let options = parse_options(config.get_options().unwrap_or_default())?;

        // As in libpq, a socket in the file system never uses TLS.
        let is_socket = addresses == 0 && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        config.ssl_mode(if is_socket { SslMode::Disable } else { tls.client_mode() });
        // A certificate may also be for an address, but the client expects a host name.
        for address in if hosts == 0 { config.get_hostaddrs().to_vec() } else { Vec::new() } {
            config.host(address.to_string());
        }
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
        Ok(Self { config, options, tls })
    }

    /// The configuration of a connection that writes batches: every wait is bounded. Of several hosts, it selects one that
    /// accepts writes.
    #[must_use]
    pub fn config(&self) -> tokio_postgres::Config {
        self.writable(self.with_options(&WRITER_OPTIONS))
    }

    /// The configuration for migrations and other tools: a statement may take as long as it needs. Of several hosts, it selects
    /// one that accepts writes.
    #[must_use]
    pub fn maintenance_config(&self) -> tokio_postgres::Config {
        self.writable(self.with_options(&MIGRATION_OPTIONS))
    }

    /// Of several hosts, one that accepts writes, unless the URL asks for another.
    fn writable(&self, mut config: tokio_postgres::Config) -> tokio_postgres::Config {
        if self.targets() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config
    }

    /// Prepares TLS as the URL asks for it, and reads the certificates that it names.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn tls(&self) -> Result<MakeTls, StoreError> {
        self.tls.connector()
    }

    /// How long connecting may take, over all hosts.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        let targets = u32::try_from(self.targets()).unwrap_or(u32::MAX);
        self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT).saturating_mul(targets)
    }

    fn targets(&self) -> usize {
        self.config.get_hosts().len().max(self.config.get_hostaddrs().len())
    }

    fn with_options(&self, ours: &[(&str, &str)]) -> tokio_postgres::Config {
        let mut text = String::new();
        for (name, value) in self.session(ours) {
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

    /// Session options: ours, those of the URL, and those that must not be weakened. The last option of a name wins.
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
        for target in 0..self.targets() {
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

/// Refuses a URL that can be split in two ways. A piece of the password would pass for a host, a database or a
/// parameter, and be shown as such.
fn check_separators(url: &str) -> Result<(), InvalidPostgresUrl> {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()).unwrap_or_default();
    let in_authority = authority.matches('@').count();
    if in_authority > 1 || url.matches('@').count() > in_authority {
        return Err(InvalidPostgresUrl::Separators);
    }
    Ok(())
}

/// Checks the names of the parameters, and takes out those about TLS, because the client's parser does not know them
/// all.
fn without_tls_parameters(url: &str) -> Result<(String, TlsParameters), InvalidPostgresUrl> {
    let mut tls = TlsParameters::default();
    let Some((front, query)) = url.split_once('?') else { return Ok((url.to_owned(), tls)) };
    let mut kept = Vec::new();
    for (index, parameter) in query.split('&').enumerate() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let target = match name {
            "sslmode" => &mut tls.sslmode,
            "sslrootcert" => &mut tls.sslrootcert,
            "sslcert" => &mut tls.sslcert,
            "sslkey" => &mut tls.sslkey,
            "" if value.is_empty() => continue,
            known if PARAMETERS.contains(&known) => {
                kept.push(parameter);
                continue;
            }
            _ => return Err(InvalidPostgresUrl::Parameter(index + 1)),
        };
        let text = percent_decode_str(value).decode_utf8().map_err(|_| InvalidPostgresUrl::TlsText)?;
        *target = Some(text.into_owned());
    }
    let rest = if kept.is_empty() { front.to_owned() } else { format!("{front}?{}", kept.join("&")) };
    Ok((rest, tls))
}

/// Reads `-c name=value -c …`. As in the server, a backslash keeps the next character.
fn parse_options(text: &str) -> Result<Vec<(String, String)>, InvalidPostgresUrl> {
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
            Some("") => words.next().ok_or(InvalidPostgresUrl::Options)?,
            Some(setting) => setting.to_owned(),
            None => return Err(InvalidPostgresUrl::Options),
        };
        let (name, value) = setting.split_once('=').ok_or(InvalidPostgresUrl::Options)?;
        options.push((name.to_owned(), value.to_owned()));
    }
    Ok(options)
}

const APPLICATION_NAME: &str = "odograph";
const DEFAULT_PORT: u16 = 5432;
/// A reachable server answers in milliseconds. Trackers wait meanwhile, and give up after about half a minute.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Data that is not acknowledged for this long means that the peer or the network is gone. Linux itself tries for 15
/// minutes.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Detects a dead peer within about a minute while nothing is sent, and keeps middleboxes from forgetting the
/// connection.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 3;

/// - `lock_timeout`: a transaction holds its locks for a second at most. A longer lock is maintenance, and the batch is
///   better retried than left waiting.
/// - `statement_timeout`: no statement of a batch takes 45 s on a server that keeps up. It is below the client's limit
///   for a commit, so that the server has released its locks when the client retries.
/// - `idle_in_transaction_session_timeout`, `client_connection_check_interval`: a backend without a client must not
///   keep locks, in a transaction or in a statement.
/// - `work_mem`: sorting a batch needs about 20 MB. With PostgreSQL's 4 MB it would use files.
const WRITER_OPTIONS: [(&str, &str); 9] = [
    ("lock_timeout", "10s"),
    ("statement_timeout", "45s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("client_connection_check_interval", "2s"),
    ("work_mem", "64MB"),
    // A session whose client vanished holds its lane until the server notices.
    ("tcp_keepalives_idle", "15"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "30s"),
];
/// Making a hypertable moves all rows, however long that takes. But waiting for an exclusive lock behind a long reader
/// stops every other session, so that wait is bounded.
const MIGRATION_OPTIONS: [(&str, &str); 2] = [("lock_timeout", "60s"), ("statement_timeout", "0")];
/// Correctness rests on these, whatever the role or the database sets:
/// - `synchronous_commit`: a commit that was answered survives a crash of the server.
/// - `default_transaction_isolation`: a transaction that waited for a lock must see what the other one committed.
/// - `row_security`: with `off`, a policy that would hide rows is an error.
const FIXED_OPTIONS: [(&str, &str); 4] = [
    ("synchronous_commit", "on"),
    ("TimeZone", "UTC"),
    ("default_transaction_isolation", "read committed"),
    ("row_security", "off"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> PostgresUrl {
        PostgresUrl::parse(url).unwrap()
    }

    #[test]
    fn every_client_gets_the_same_parts() {
        let url = parse(
            "postgresql://o%40do:p%3Aw%2F%3F@[::1]:6000/tele%20metry?application_name=a%26b&sslmode=allow&connect_timeout=7",
        );
        for config in [url.config(), url.maintenance_config()] {
            assert_eq!((config.get_user(), config.get_password()), (Some("o@do"), Some(&b"p:w/?"[..])));
            assert_eq!((config.get_hosts(), config.get_ports()), (&[Host::Tcp("::1".to_owned())][..], &[6000][..]));
            assert_eq!((config.get_dbname(), config.get_application_name()), (Some("tele metry"), Some("a&b")));
        }
        assert_eq!(url.connect_timeout(), Duration::from_secs(7));
        assert_eq!(url.to_string(), "postgres://o@do:_@[::1]:6000/tele metry");
    }

    #[test]
    fn every_host_of_a_list_is_kept_and_one_that_accepts_writes_is_selected() {
        let url = parse("postgres://u@a,b:6000/db");
        let config = url.maintenance_config();
        assert_eq!(config.get_hosts(), [Host::Tcp("a".to_owned()), Host::Tcp("b".to_owned())]);
        assert_eq!(config.get_ports(), [5432, 6000]);
        for config in [config, url.config()] {
            assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        }
        assert_eq!(url.connect_timeout(), 2 * CONNECT_TIMEOUT);
        assert!(matches!(PostgresUrl::parse("postgres://u@a/db?port=1,2,3"), Err(InvalidPostgresUrl::Hosts)));
        assert!(matches!(PostgresUrl::parse("postgres:///db"), Err(InvalidPostgresUrl::NoHost)));
        let socket = parse("postgres://%2Frun%2Fpostgresql/db?sslmode=require").config();
        assert_eq!(socket.get_hosts(), [Host::Unix("/run/postgresql".into())]);
        assert_eq!(socket.get_ssl_mode(), SslMode::Disable, "no TLS in the file system");
        let address = parse("postgres:///db?hostaddr=10.0.0.7&sslmode=require").config();
        assert_eq!(address.get_hosts(), [Host::Tcp("10.0.0.7".to_owned())], "a certificate may name it");
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
        let maintenance = url.maintenance_config();
        assert!(maintenance.get_options().unwrap().contains(r"-c x.y=a\ b "));
        assert!(maintenance.get_options().unwrap().contains("-c synchronous_commit=on -c TimeZone=UTC"));
        assert!(matches!(PostgresUrl::parse("postgres://h/db?options=-d"), Err(InvalidPostgresUrl::Options)));
    }

    #[test]
    fn what_cannot_be_verified_is_refused_and_not_trusted() {
        let parsed = |query: &str| PostgresUrl::parse(&format!("postgres://h/db?{query}"));
        for (query, mode) in [
            ("application_name=a", SslMode::Prefer),
            ("sslmode=disable", SslMode::Disable),
            ("sslmode=allow", SslMode::Prefer),
            ("sslmode=require", SslMode::Require),
            ("sslmode=verify-ca&sslrootcert=%2Fetc%2Fca%20s.pem", SslMode::Require),
            ("sslmode=verify-full&sslrootcert=/ca.pem&sslcert=c&sslkey=k", SslMode::Require),
            ("sslrootcert=system", SslMode::Require),
            ("sslrootcert=system&sslmode=verify-full", SslMode::Require),
        ] {
            assert_eq!(parsed(query).unwrap().config().get_ssl_mode(), mode, "{query}");
        }
        for mode in ["verify-ca", "verify-full", "verify-full&sslrootcert="] {
            assert!(matches!(parsed(&format!("sslmode={mode}")), Err(InvalidPostgresUrl::Roots)), "{mode}");
        }
        for mode in ["allow", "prefer", "require", "verify-ca"] {
            let query = format!("sslmode={mode}&sslrootcert=system");
            assert!(matches!(parsed(&query), Err(InvalidPostgresUrl::SystemRoots)), "{mode}");
        }
        assert!(matches!(parsed("sslcert=c"), Err(InvalidPostgresUrl::Identity)));
        assert!(matches!(parsed("sslmode=on"), Err(InvalidPostgresUrl::SslMode)));
        assert!(matches!(parsed("sslkey=%FF&sslcert=c"), Err(InvalidPostgresUrl::TlsText)));
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
