//! The database URL, read once: the clients of both databases are built from the result.
//!
//! Nothing here shows a password: neither `Display` nor `Debug`, and no error repeats text of the URL. No library reads
//! it: those at hand know one database each, and quote the URL in their errors.

use std::fmt;
use std::path::PathBuf;

use crate::store::postgres::url::PostgresUrl;
use crate::store::postgres::url_error::InvalidPostgresUrl;

/// Where positions are stored.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// PostgreSQL, with or without TimescaleDB.
    Postgres(Box<PostgresUrl>),
    /// A SQLite file.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// Reads `postgres://…`, `postgresql://…`, `sqlite://PATH` or `sqlite:PATH`.
    ///
    /// A SQLite path is taken literally, relative or absolute (`sqlite:///var/lib/positions.db`), without percent
    /// decoding.
    ///
    /// # Errors
    /// [`InvalidDatabaseUrl`], which does not repeat the URL.
    pub fn parse(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(Box::new(PostgresUrl::parse(url)?)));
        }
        let rest = url.strip_prefix("sqlite:").ok_or(InvalidDatabaseUrl::Scheme)?;
        let path = rest.strip_prefix("//").unwrap_or(rest);
        // A database in memory would lose acknowledged records. So would some modes that parameters can ask for.
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

/// A database URL that this program cannot use.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// Neither PostgreSQL nor SQLite.
    #[error("expected a database URL that begins with postgres:// or sqlite://")]
    Scheme,
    /// No file, a database in memory, or parameters.
    #[error("expected the path of a file after sqlite://, without parameters")]
    SqlitePath,
    /// A PostgreSQL URL.
    #[error(transparent)]
    Postgres(#[from] InvalidPostgresUrl),
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
            let parsed = DatabaseUrl::parse(url).unwrap();
            assert!(matches!(&parsed, DatabaseUrl::Sqlite(file) if file.as_os_str() == path), "{parsed}");
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
