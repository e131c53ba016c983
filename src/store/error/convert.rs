//! From the clients' errors to [`StoreError`]: who must act, decided by codes and never by message text.
//!
//! The server's detail and context are left out. They quote rows, and coordinates belong in no log.

use std::error::Error;
use std::time::Duration;

use deadpool_postgres::PoolError;
use sqlx::migrate::MigrateError;
use tokio_postgres::error::Severity;

use super::remedy::{ClientFailure, remedy};
use crate::store::error::classify::{SqlErrorContext, SqlErrorKind};
use crate::store::{ErrorClass, StoreError};

impl StoreError {
    fn judged(kind: SqlErrorKind, doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: kind.class(), doing, source: source.into(), kind, in_doubt: false }
    }

    /// An error with which a server answers a statement, and ends its transaction.
    pub(crate) fn answered(doing: &'static str, code: &str, constraint: Option<&str>) -> Self {
        let kind = SqlErrorKind::of_sqlstate(code, SqlErrorContext { constraint, ..SqlErrorContext::default() });
        let (message, constraint) = ("refused".to_owned(), constraint.map(str::to_owned));
        Self::judged(kind, doing, ServerAnswer { message, code: code.to_owned(), constraint, is_final: true })
    }

    /// A number of rows that cannot be.
    pub(crate) fn miscounted(found: u64, expected: u64) -> Self {
        Self::new(ErrorClass::Refuses, "counting rows", format!("the server counts {found} rows of {expected}"))
    }

    /// What to do about it.
    pub(crate) const fn kind(&self) -> SqlErrorKind {
        self.kind
    }

    /// The SQLSTATE and the constraint, where the server named them: what quarantine says of a row.
    pub(crate) fn detail(&self) -> String {
        match self.source.downcast_ref::<ServerAnswer>() {
            Some(ServerAnswer { code, constraint: Some(constraint), .. }) => format!("{code} {constraint}"),
            Some(ServerAnswer { code, .. }) => code.clone(),
            None => self.source.to_string(),
        }
    }

    /// The SQLSTATE that the server named.
    pub(crate) fn code(&self) -> Option<&str> {
        self.source.downcast_ref::<ServerAnswer>().map(|answer| answer.code.as_str())
    }

    /// The same, and whether an earlier commit is in doubt still.
    pub(crate) fn with_doubt(self, in_doubt: bool) -> Self {
        Self { in_doubt, ..self }
    }

    /// The same, of a commit that was sent.
    pub(crate) fn doubtful(self) -> Self {
        // An ERROR is an answer: it was rolled back. A server that panics, or a proxy in between, may say something before
        // it falls silent, and the commit may stand in the log all the same.
        let is_final = self.source.downcast_ref::<ServerAnswer>().is_some_and(|answer| answer.is_final);
        let is_final = is_final && self.kind != SqlErrorKind::Retry;
        Self { in_doubt: !is_final, ..self }
    }

    /// An error on an established connection: what the server does not name itself is the connection's end.
    pub(crate) fn postgres(doing: &'static str, error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) => {
                let (constraint, schema, column) = (answer.constraint(), answer.schema(), answer.column());
                let kind =
                    SqlErrorKind::of_sqlstate(answer.code().code(), SqlErrorContext { constraint, schema, column });
                let answer = ServerAnswer {
                    message: answer.message().to_owned(),
                    code: answer.code().code().to_owned(),
                    constraint: constraint.map(str::to_owned),
                    is_final: answer.parsed_severity() == Some(Severity::Error),
                };
                Self::judged(kind, doing, answer)
            }
            None => Self::new(ErrorClass::Unavailable, doing, ClientFailure::of(error)),
        }
    }

    /// An error while connecting. Where neither server nor network is the cause, it is the configuration: a missing
    /// password, or a way to log in that this client does not have.
    pub(crate) fn postgres_connect(doing: &'static str, error: PoolError) -> Self {
        match error {
            PoolError::Backend(error)
                if error.as_db_error().is_none() && !error.is_closed() && !has_io_cause(&error) =>
            {
                Self::new(ErrorClass::Refuses, doing, ClientFailure::of(error))
            }
            PoolError::Backend(error) => Self::postgres(doing, error),
            other => Self::new(ErrorClass::Unavailable, doing, other),
        }
    }

    pub(crate) fn timed_out(doing: &'static str, limit: Duration) -> Self {
        Self::new(ErrorClass::Unavailable, doing, NoAnswer(limit))
    }

    pub(crate) fn sqlx(doing: &'static str, error: sqlx::Error) -> Self {
        Self::judged(verdict_of_sqlx(&error), doing, error)
    }

    pub(crate) fn migrate(doing: &'static str, error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Self::sqlx(doing, error),
            // Unknown, changed or half-applied migrations.
            other => Self::new(ErrorClass::Refuses, doing, other),
        }
    }
}

/// What the server said, and nothing about the rows.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {code}){}{}", if remedy(code).is_some() { "; " } else { "" }, remedy(code).unwrap_or_default())]
struct ServerAnswer {
    message: String,
    code: String,
    constraint: Option<String>,
    /// Whether the statement has ended, and nothing but it.
    is_final: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

fn verdict_of_sqlx(error: &sqlx::Error) -> SqlErrorKind {
    match error {
        sqlx::Error::Database(answer) => match answer.code() {
            Some(code) => code.parse().map_or(SqlErrorKind::Refuse, SqlErrorKind::of_sqlite),
            None => SqlErrorKind::Retry,
        },
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
            SqlErrorKind::Retry
        }
        // Configuration, types and columns: it will be the same the next time.
        _ => SqlErrorKind::Refuse,
    }
}

fn has_io_cause(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(<dyn Error>::is::<std::io::Error>)
}
