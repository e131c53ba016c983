//! The error of every store operation, made from the errors of the clients.
//!
//! It leaves out the server's detail and context. They quote rows, and coordinates do not belong in a log.

use std::error::Error;
use std::time::Duration;

use deadpool_postgres::PoolError;
use sqlx::migrate::MigrateError;
use tokio_postgres::error::Severity;

use super::class::ErrorClass;
use super::classify::{SqlErrorContext, SqlErrorKind};
use super::remedy::{ClientFailure, remedy};

/// A failed store operation: what to do about it, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct StoreError {
    /// Who must act.
    pub class: ErrorClass,
    /// What was being done.
    pub doing: &'static str,
    /// The cause.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
    kind: SqlErrorKind,
    in_doubt: bool,
    after_recording: bool,
}

impl StoreError {
    /// An error of a class.
    pub fn new(class: ErrorClass, doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let kind = match class {
            ErrorClass::Unavailable => SqlErrorKind::Retry,
            ErrorClass::Refuses => SqlErrorKind::Refuse,
        };
        Self { class, doing, source: source.into(), kind, in_doubt: false, after_recording: false }
    }

    fn of_kind(kind: SqlErrorKind, doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: kind.class(), doing, source: source.into(), kind, in_doubt: false, after_recording: false }
    }

    /// An error with which a server answers a statement, and ends its transaction.
    #[must_use]
    pub fn answered(doing: &'static str, code: &str, constraint: Option<&str>) -> Self {
        let kind = SqlErrorKind::of_sqlstate(code, SqlErrorContext { constraint, ..SqlErrorContext::default() });
        let (message, constraint) = ("refused".to_owned(), constraint.map(str::to_owned));
        Self::of_kind(kind, doing, ServerAnswer { message, code: code.to_owned(), constraint, is_final: true })
    }

    /// A number of rows that cannot be.
    pub(crate) fn miscounted(found: u64, expected: u64) -> Self {
        Self::new(ErrorClass::Refuses, "counting rows", format!("the server counts {found} rows of {expected}"))
    }

    /// An error on an open connection. If the server names no code, the connection has ended.
    pub(crate) fn postgres(doing: &'static str, error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) => {
                let (constraint, schema, column) = (answer.constraint(), answer.schema(), answer.column());
                let context = SqlErrorContext { constraint, schema, column };
                let kind = SqlErrorKind::of_sqlstate(answer.code().code(), context);
                let answer = ServerAnswer {
                    message: answer.message().to_owned(),
                    code: answer.code().code().to_owned(),
                    constraint: constraint.map(str::to_owned),
                    is_final: answer.parsed_severity() == Some(Severity::Error),
                };
                Self::of_kind(kind, doing, answer)
            }
            None => Self::new(ErrorClass::Unavailable, doing, ClientFailure::of(error)),
        }
    }

    /// An error while connecting. If neither the server nor the network is the cause, the configuration is: the
    /// password is missing, or the server wants a login method that this client does not have.
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

    /// An error of a client without a pool. It names the migration that failed, if there is one.
    pub(crate) fn postgres_client(
        doing: &'static str,
        migration: Option<&'static str>,
        error: tokio_postgres::Error,
    ) -> Self {
        let failed = Self::postgres_connect(doing, PoolError::Backend(error));
        match migration {
            None => failed,
            Some(migration) => Self { source: format!("{migration}: {}", failed.source).into(), ..failed },
        }
    }

    pub(crate) fn timed_out(doing: &'static str, limit: Duration) -> Self {
        Self::new(ErrorClass::Unavailable, doing, NoAnswer(limit))
    }

    pub(crate) fn sqlx(doing: &'static str, error: sqlx::Error) -> Self {
        Self::of_kind(kind_of_sqlx(&error), doing, error)
    }

    pub(crate) fn migrate(doing: &'static str, error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Self::sqlx(doing, error),
            // Unknown, changed or half-applied migrations.
            other => Self::new(ErrorClass::Refuses, doing, other),
        }
    }

    /// What a transaction does about it.
    pub(crate) const fn kind(&self) -> SqlErrorKind {
        self.kind
    }

    /// The same error, for the operator: retrying would not help.
    pub(crate) fn refused(self) -> Self {
        Self { class: ErrorClass::Refuses, ..self }
    }

    /// Whether the commit was sent and not answered: it may have happened, or happen a moment later.
    #[must_use]
    pub const fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// The same error, with whether an earlier commit is still in doubt.
    pub(crate) fn with_doubt(self, in_doubt: bool) -> Self {
        Self { in_doubt, ..self }
    }

    /// The same error, of a commit that was sent.
    pub(crate) fn doubtful(self) -> Self {
        // An ERROR is an answer: the server rolled back. A server that panics, or a proxy in between, may send
        // something before it falls silent, and the commit may be in the log all the same.
        let is_final = self.source.downcast_ref::<ServerAnswer>().is_some_and(|answer| answer.is_final);
        let is_final = is_final && self.kind != SqlErrorKind::Retry;
        Self { in_doubt: !is_final, ..self }
    }

    /// Whether the database answers and refuses what it was given, while it may take something else.
    #[must_use]
    pub fn is_about_content(&self) -> bool {
        // 23503: a foreign key that the operator added. P0001: a trigger of the operator that raises an exception. 53400: too
        // many rows to unpack in one statement. 54: too long or too complex.
        let by_code = |code: &str| matches!(code, "23503" | "P0001" | "53400") || code.starts_with("54");
        self.kind == SqlErrorKind::Row || self.code().is_some_and(by_code)
    }

    /// Whether changes of flags were recorded before this error: positions do not follow them yet.
    #[must_use]
    pub const fn is_after_recording(&self) -> bool {
        self.after_recording
    }

    /// The same error, after changes of flags were recorded.
    pub(crate) fn after_recording(self) -> Self {
        Self { after_recording: true, ..self }
    }

    /// Whether another session holds the lane: a copy of this journal in another process, or an earlier connection of
    /// this process that ended, which the server has not noticed yet.
    #[must_use]
    pub fn lane_is_held(&self) -> bool {
        self.doing == CLAIMING_LANE && self.kind == SqlErrorKind::Retry
    }

    /// The SQLSTATE, and the constraint if the server named one: what quarantine records about a row.
    #[must_use]
    pub fn detail(&self) -> String {
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
}

/// What the server answered, and nothing about the rows.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {code}){}{}", if remedy(code).is_some() { "; " } else { "" }, remedy(code).unwrap_or_default())]
struct ServerAnswer {
    message: String,
    code: String,
    constraint: Option<String>,
    /// Whether only the statement ended, and not the session.
    is_final: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

fn kind_of_sqlx(error: &sqlx::Error) -> SqlErrorKind {
    match error {
        sqlx::Error::Database(answer) => match answer.code() {
            Some(code) => code.parse().map_or(SqlErrorKind::Refuse, SqlErrorKind::of_sqlite),
            None => SqlErrorKind::Retry,
        },
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
            SqlErrorKind::Retry
        }
        // Configuration, types and columns: the next attempt would end in the same way.
        _ => SqlErrorKind::Refuse,
    }
}

fn has_io_cause(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(<dyn Error>::is::<std::io::Error>)
}

/// What a session does while another one may hold the lane.
pub const CLAIMING_LANE: &str = "waiting for the session that holds this journal's lane";
