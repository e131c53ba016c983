//! Who must act on a store error.

use std::fmt;

/// What a store error asks for. Nothing is ever dropped: both are retried, the second one slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The database is away, restarting, out of a resource, or chose this transaction as a victim. It passes.
    Unavailable,
    /// The database answers and refuses: schema, permission, password, or a read-only server. The operator must act.
    Refuses,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 2] = [Self::Unavailable, Self::Refuses];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refuses => "refuses",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
