//! From the clients' errors to [`StoreError`]: who must act, decided by codes and never by message text.
//!
//! The server's detail and context are left out. They quote rows, and coordinates belong in no log.

use std::error::Error;
use std::time::Duration;

use deadpool_postgres::PoolError;
use sqlx::migrate::MigrateError;

use super::{ErrorClass, StoreError};

impl StoreError {
    pub(super) fn new(class: ErrorClass, doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class, doing, source: source.into() }
    }

    /// An error on an established connection: what the server does not name itself is the connection's end.
    pub(super) fn postgres(doing: &'static str, error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) => {
                let code = answer.code().code();
                let answer = ServerAnswer { message: answer.message().to_owned(), code: code.to_owned() };
                Self::new(class_of_sqlstate(&answer.code), doing, answer)
            }
            None => Self::new(ErrorClass::Unavailable, doing, error),
        }
    }

    /// An error while connecting. Where neither server nor network is the cause, it is the configuration: a missing
    /// password, or a way to log in that this client does not have.
    pub(super) fn postgres_connect(doing: &'static str, error: PoolError) -> Self {
        match error {
            PoolError::Backend(error)
                if error.as_db_error().is_none() && !error.is_closed() && !has_io_cause(&error) =>
            {
                Self::new(ErrorClass::Refuses, doing, error)
            }
            PoolError::Backend(error) => Self::postgres(doing, error),
            other => Self::new(ErrorClass::Unavailable, doing, other),
        }
    }

    pub(super) fn timed_out(doing: &'static str, limit: Duration) -> Self {
        Self::new(ErrorClass::Unavailable, doing, NoAnswer(limit))
    }

    pub(super) fn sqlx(doing: &'static str, error: sqlx::Error) -> Self {
        Self::new(class_of_sqlx(&error), doing, error)
    }

    pub(super) fn migrate(doing: &'static str, error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Self::sqlx(doing, error),
            // Unknown, changed or half-applied migrations.
            other => Self::new(ErrorClass::Refuses, doing, other),
        }
    }
}

/// What the server said, and nothing about the rows.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {code})")]
struct ServerAnswer {
    message: String,
    code: String,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

fn class_of_sqlstate(code: &str) -> ErrorClass {
    match code {
        // read_only_sql_transaction
        "25006" => ErrorClass::Refuses,
        // unique_violation: our own inserts pass over what is there. It is TimescaleDB's catalog, when two connections
        // make the same chunk at the same moment; the second finds it.
        "23505" => ErrorClass::Unavailable,
        // 22, 23: the rows and the columns do not fit together, which is a matter of the schema: rows are typed.
        // 28, 3D: login and database. 42: missing tables and columns, and permissions.
        _ => match code.get(..2) {
            Some("22" | "23" | "28" | "3D" | "42") => ErrorClass::Refuses,
            _ => ErrorClass::Unavailable,
        },
    }
}

fn class_of_sqlx(error: &sqlx::Error) -> ErrorClass {
    match error {
        sqlx::Error::Database(answer) => match answer.code() {
            Some(code) if answer.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() => class_of_sqlite(&code),
            Some(code) => class_of_sqlstate(&code),
            None => ErrorClass::Unavailable,
        },
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
            ErrorClass::Unavailable
        }
        // Configuration, types and columns: it will be the same the next time.
        _ => ErrorClass::Refuses,
    }
}

/// By the primary result code, which is the lowest byte of the extended one.
fn class_of_sqlite(code: &str) -> ErrorClass {
    match code.parse::<u32>().map(|code| code & 0xFF) {
        Ok(SQLITE_BUSY | SQLITE_LOCKED | SQLITE_NOMEM | SQLITE_INTERRUPT | SQLITE_IOERR | SQLITE_FULL) => {
            ErrorClass::Unavailable
        }
        // Among others: read-only, cannot open, corrupt, not a database, no such table.
        _ => ErrorClass::Refuses,
    }
}

fn has_io_cause(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(<dyn Error>::is::<std::io::Error>)
}

const SQLITE_BUSY: u32 = 5;
const SQLITE_LOCKED: u32 = 6;
const SQLITE_NOMEM: u32 = 7;
const SQLITE_INTERRUPT: u32 = 9;
const SQLITE_IOERR: u32 = 10;
const SQLITE_FULL: u32 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_the_operator_must_mend() {
        for code in ["42P01", "42703", "42501", "28000", "28P01", "3D000", "25006", "22003", "23502", "23514"] {
            assert_eq!(class_of_sqlstate(code), ErrorClass::Refuses, "{code}");
        }
        for code in [
            "08006", "53100", "53300", "57P01", "57P03", "57014", "58030", "40P01", "40001", "55P03", "25P03", "23505",
            "XX000",
        ] {
            assert_eq!(class_of_sqlstate(code), ErrorClass::Unavailable, "{code}");
        }
        for (code, class) in [
            ("5", ErrorClass::Unavailable),
            ("517", ErrorClass::Unavailable),
            ("13", ErrorClass::Unavailable),
            ("778", ErrorClass::Unavailable),
            ("8", ErrorClass::Refuses),
            ("14", ErrorClass::Refuses),
            ("11", ErrorClass::Refuses),
            ("26", ErrorClass::Refuses),
            ("1", ErrorClass::Refuses),
        ] {
            assert_eq!(class_of_sqlite(code), class, "{code}");
        }
    }
}
