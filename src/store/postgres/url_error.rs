//! Why a PostgreSQL URL is refused. No error repeats text of the URL: it may be part of the password.

/// A PostgreSQL URL that this program cannot use.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPostgresUrl {
    /// With an unescaped `@`, `/` or `?` in the password, hosts and parameters cannot be told apart.
    #[error(
        "the database URL has an @ out of place: percent-encode @, / and ? in the user, the password and the parameters"
    )]
    Separators,
    /// An unknown `sslmode`.
    #[error("sslmode must be disable, allow, prefer, require, verify-ca or verify-full")]
    SslMode,
    /// No certificate to verify against.
    #[error(
        "sslmode=verify-ca and verify-full need sslrootcert: the file of the certificate that signed the server's, or system (verify-full only)"
    )]
    Roots,
    /// A certificate of a public authority proves nothing unless its name is checked.
    #[error("sslrootcert=system works with sslmode=verify-full only")]
    SystemRoots,
    /// One without the other.
    #[error("sslcert and sslkey belong together: the files of this client's certificate and of its key")]
    Identity,
    /// Bytes that are not UTF-8 after percent decoding.
    #[error("sslmode, sslrootcert, sslcert and sslkey must be percent-encoded UTF-8")]
    TlsText,
    /// Counted from 1, and not named: with an unescaped `?` in the password, the name may be a part of it.
    #[error("parameter {0} of the database URL is unknown; known parameters: {known}", known = PARAMETERS.join(", "))]
    Parameter(usize),
    /// The session options must be understood, because ours are added to them.
    #[error("options in the database URL must have the form `-c name=value`")]
    Options,
    /// Nothing to connect to.
    #[error("the database URL names no host")]
    NoHost,
    /// The lists belong together, entry by entry.
    #[error("the lists of hosts, addresses and ports in the database URL differ in length")]
    Hosts,
    /// Not text.
    #[error("the password in the database URL is not UTF-8 (percent-encode special characters)")]
    Password,
    /// Anything else; the cause says which part.
    #[error("the database URL cannot be read (percent-encode special characters)")]
    Malformed(#[source] tokio_postgres::Error),
}

/// Every parameter of a PostgreSQL URL.
pub(crate) const PARAMETERS: [&str; 14] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
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
