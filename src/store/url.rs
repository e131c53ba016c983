//! The database URL: parsed once, by us, and both clients are built from the result.
//!
//! Nothing here shows a password: not `Display`, not `Debug`, and no error repeats text of the URL.

use std::fmt;
use std::path::PathBuf;

use super::postgres::url::PostgresUrl;

/// Where positions are stored.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// PostgreSQL, with TimescaleDB or without.
    Postgres(Box<PostgresUrl>),
    /// A SQLite file; its directory has to be there.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// Reads `postgres://…`, `postgresql://…`, `sqlite://PATH` or `sqlite:PATH`.
    ///
    /// A SQLite path is taken as it stands, relative or absolute (`sqlite:///var/lib/positions.db`), without percent
    /// decoding.
    pub fn parse(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(Box::new(PostgresUrl::parse(url)?)));
        }
        let rest = url.strip_prefix("sqlite:").ok_or(InvalidDatabaseUrl::Scheme)?;
        let path = rest.strip_prefix("//").unwrap_or(rest);
        // A database in memory would lose what was acknowledged; so would the modes that parameters can ask for.
        if path.is_empty() || path.starts_with(':') || path.contains('?') {
            return Err(InvalidDatabaseUrl::SqlitePath);
        }
        Ok(Self::sqlite(path))
    }

    /// A SQLite file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self::Sqlite(path.into())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => url.fmt(f),
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// Not a database URL that this program can use.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// Neither PostgreSQL nor SQLite.
    #[error("a database URL begins with postgres:// or sqlite://")]
    Scheme,
    /// No file, a database in memory, or parameters.
    #[error("sqlite:// is followed by the path of a file, without parameters")]
    SqlitePath,
    /// With `@`, `/` or `?` in the password, what is a host and what a parameter is anyone's guess.
    #[error(
        "the database URL has an @ out of place: in user, password and parameters, @, / and ? have to be percent-encoded"
    )]
    Separators,
    /// Not an `sslmode`.
    #[error("sslmode is disable, allow, prefer, require, verify-ca or verify-full")]
    SslMode,
    /// Nobody to verify against.
    #[error(
        "sslmode=verify-ca and verify-full need sslrootcert: the file of the certificate that signed the server's, or system (verify-full only)"
    )]
    Roots,
    /// A certificate of a public authority says nothing without a look at the name in it.
    #[error("sslrootcert=system goes with sslmode=verify-full only")]
    SystemRoots,
    /// One without the other.
    #[error("sslcert and sslkey belong together: the files of this client's certificate and of its key")]
    Identity,
    /// Not text behind its percent signs.
    #[error("sslmode, sslrootcert, sslcert and sslkey have to be percent-encoded UTF-8")]
    TlsText,
    /// Counted from 1, and not named: with an unescaped `?` in it, the name may be a part of the password.
    #[error("parameter {0} of the database URL is not known; these are: {known}", known = super::postgres::url::PARAMETERS.join(", "))]
    Parameter(usize),
    /// Session options have to be understood, as one client takes them as text and the other as pairs.
    #[error("options in the database URL have to be of the form `-c name=value`")]
    Options,
    /// Nowhere to connect to.
    #[error("the database URL names no host")]
    NoHost,
    /// They are lists that belong together.
    #[error("the database URL has lists of hosts, addresses and ports that differ in length")]
    Hosts,
    /// Not text.
    #[error("the password in the database URL is not UTF-8 (special characters have to be percent-encoded)")]
    Password,
    /// Anything else; the cause says which part.
    #[error("the database URL cannot be read (special characters have to be percent-encoded)")]
    Malformed(#[source] tokio_postgres::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_paths_are_relative_or_absolute() {
        for (url, path) in [
            ("sqlite://data/positions.db", "data/positions.db"),
            ("sqlite:data/positions.db", "data/positions.db"),
            ("sqlite:///var/lib/positions.db", "/var/lib/positions.db"),
            ("sqlite:/var/lib/positions.db", "/var/lib/positions.db"),
        ] {
            let DatabaseUrl::Sqlite(parsed) = DatabaseUrl::parse(url).unwrap() else { panic!("{url}") };
            assert_eq!(parsed, PathBuf::from(path));
        }
    }

    #[test]
    fn what_cannot_keep_positions_is_refused() {
        for url in ["", "mysql://host/db", "positions.db", "postgres:host", "POSTGRES"] {
            assert!(matches!(DatabaseUrl::parse(url), Err(InvalidDatabaseUrl::Scheme)), "{url}");
        }
        for url in ["sqlite:", "sqlite://", "sqlite::memory:", "sqlite://:memory:", "sqlite://a.db?mode=memory"] {
            assert!(matches!(DatabaseUrl::parse(url), Err(InvalidDatabaseUrl::SqlitePath)), "{url}");
        }
    }
}
