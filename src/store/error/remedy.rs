//! What an operator can do about an error: one sentence for each code with a known remedy.

use std::error::Error;
use std::fmt;

/// The remedy for a SQLSTATE, as one sentence without a full stop.
#[must_use]
pub fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "25006" => {
            "the server or database is read-only: name the primary in DATABASE_URL, or make it writable again, for \
             example with ALTER DATABASE … RESET default_transaction_read_only"
        }
        "28P01" => {
            "check user and password in DATABASE_URL (special characters are percent-encoded), or set the password \
             with ALTER ROLE … PASSWORD"
        }
        "28000" => {
            "make the role with CREATE ROLE … LOGIN, or let it in: pg_hba.conf decides by user, database, address, TLS \
             and client certificate (sslmode, sslcert and sslkey in DATABASE_URL)"
        }
        "3D000" => "make the database with CREATE DATABASE … OWNER …, or correct its name in DATABASE_URL",
        "42501" => "grant the role the privileges that docs/database.md lists under Roles",
        "42883" => {
            "TimescaleDB 2.13 or later is needed: install a later package on the server, restart it, and run ALTER \
             EXTENSION timescaledb UPDATE as the first statement of a new `psql -X`"
        }
        "42P01" | "42703" => {
            "a table or column is missing, or search_path points elsewhere: run `odograph migrate` with the same \
             DATABASE_URL, which makes missing tables and names missing columns"
        }
        "53100" => "the server's disk is full: free some space there",
        "53300" => "the server has no connection left: raise max_connections, or close idle clients",
        "53400" => {
            "one transaction would unpack more rows of the columnstore than it may: raise \
             timescaledb.max_tuples_decompressed_per_dml_transaction with ALTER ROLE … SET, or turn the chunk back \
             into rows with CALL convert_to_rowstore(…) (decompress_chunk(…) before 2.18)"
        }
        "55P03" => "another session holds a lock: pg_stat_activity shows which",
        "58P01" => {
            "the installed library of TimescaleDB differs from the one that this database was made with: run ALTER \
             EXTENSION timescaledb UPDATE as the first statement of a new `psql -X`, or install the old package again"
        }
        _ => return None,
    })
}

/// The client reports these by text alone. A test with a real server holds the texts.
fn without_code(error: &tokio_postgres::Error) -> Option<&'static str> {
    let cause = error.source()?.to_string();
    match cause.as_str() {
        "server does not support TLS" => Some(
            "set ssl = on with ssl_cert_file and ssl_key_file on the server, or use sslmode=prefer if the network to \
             it is trusted",
        ),
        "database does not allow writes" => Some("no server in DATABASE_URL accepts writes: name the primary"),
        _ => None,
    }
}

/// A failure without an answer from the server. Displays the whole chain of causes, and what to do about it: the last
/// cause of a failed handshake says why it failed, and a log line shows only the first.
#[derive(Debug)]
pub(crate) struct ClientFailure(tokio_postgres::Error);

impl ClientFailure {
    pub(crate) fn of(error: tokio_postgres::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for ClientFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        without_code(&self.0).map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl Error for ClientFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_must_repair_has_a_remedy() {
        for code in ["25006", "28000", "28P01", "3D000", "42501", "42703", "42883", "42P01", "58P01"] {
            let sentence = remedy(code).unwrap_or_else(|| panic!("{code} has no remedy"));
            assert!(!sentence.ends_with('.') && !sentence.contains("  "), "{sentence}");
        }
        assert_eq!(remedy("40P01"), None, "it passes by itself");
    }
}
