//! What an error of the database asks of a transaction, decided by its code and never by its text.

use super::class::ErrorClass;
use crate::store::model::column_set::BASE_COLUMNS;
use crate::store::model::columns::ELEMENTS;

/// What a transaction does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SqlErrorKind {
    /// It passes by itself: retry, a little later each time.
    Retry,
    /// The operator must act: retry slowly, quarantine nothing.
    Refuse,
    /// A row does not fit: find it, quarantine it, commit the rest.
    Row,
    /// A row that was taken for new is already in `positions`: write under the key.
    Stored,
}

impl SqlErrorKind {
    /// The class of an error that leaves the store. If the store could not settle an error about rows itself, the
    /// operator must.
    pub(crate) const fn class(self) -> ErrorClass {
        match self {
            Self::Retry | Self::Stored => ErrorClass::Unavailable,
            Self::Refuse | Self::Row => ErrorClass::Refuses,
        }
    }

    /// Decides by SQLSTATE and by what the server names with it.
    pub(crate) fn of_sqlstate(code: &str, context: SqlErrorContext<'_>) -> Self {
        let SqlErrorContext { constraint, schema, column } = context;
        match code {
            // invalid_binary_representation and bad_copy_file_format: a column of another type, or our own encoding,
            // and not a row. read_only_sql_transaction. undefined_file: the extension's library is missing.
            "22P03" | "22P04" | "25006" | "58P01" => Self::Refuse,
            // unique_violation. Constraints of chunks end in the name of the table's.
            "23505" if constraint.is_some_and(|name| name.ends_with(POSITIONS_KEY)) => Self::Stored,
            // Two connections made the same chunk at the same moment. On a retry the second one finds it.
            "23505" if schema.is_none_or(|schema| schema == TIMESCALEDB_CATALOG) => Self::Retry,
            // A column that the operator added and that no row can fill.
            "23502" if column.is_some_and(|column| !is_ours(column)) => Self::Refuse,
            // An index or a check that the operator added, or a missing value.
            "23505" | "23514" | "23502" => Self::Row,
            _ => match code.get(..2) {
                Some("22") => Self::Row,
                // 23: a foreign key that the operator added. 28, 3D, 3F: login, database, schema. 42: missing tables
                // and columns, permissions. 0A: not supported here. P0: a trigger that the operator added.
                Some("23" | "28" | "3D" | "3F" | "42" | "0A" | "P0") => Self::Refuse,
                // 08, 53, 57, 58, 40, 55P03, 25P03, and every code that is not listed here.
                _ => Self::Retry,
            },
        }
    }

    /// Decides by SQLite's result code; the primary code is its lowest byte.
    pub(crate) fn of_sqlite(code: u32) -> Self {
        match code & 0xFF {
            SQLITE_BUSY | SQLITE_LOCKED | SQLITE_NOMEM | SQLITE_INTERRUPT | SQLITE_IOERR | SQLITE_FULL => Self::Retry,
            SQLITE_TOOBIG | SQLITE_CONSTRAINT | SQLITE_MISMATCH => Self::Row,
            // Among others: read-only, cannot open, corrupt, not a database, no such table.
            _ => Self::Refuse,
        }
    }
}

/// The objects that a server names with an error.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SqlErrorContext<'a> {
    pub(crate) constraint: Option<&'a str>,
    pub(crate) schema: Option<&'a str>,
    pub(crate) column: Option<&'a str>,
}

fn is_ours(column: &str) -> bool {
    BASE_COLUMNS.contains(&column) || ELEMENTS.iter().any(|element| element.name == column)
}

/// The primary key of `positions`.
const POSITIONS_KEY: &str = "positions_pkey";
const TIMESCALEDB_CATALOG: &str = "_timescaledb_catalog";

const SQLITE_BUSY: u32 = 5;
const SQLITE_LOCKED: u32 = 6;
const SQLITE_NOMEM: u32 = 7;
const SQLITE_INTERRUPT: u32 = 9;
const SQLITE_IOERR: u32 = 10;
const SQLITE_FULL: u32 = 13;
const SQLITE_TOOBIG: u32 = 18;
const SQLITE_CONSTRAINT: u32 = 19;
const SQLITE_MISMATCH: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_its_kind() {
        let plain = |code| {
            SqlErrorKind::of_sqlstate(code, SqlErrorContext { schema: Some("public"), ..SqlErrorContext::default() })
        };
        for code in ["22003", "22021", "22P02", "23502", "23514", "23505"] {
            assert_eq!(plain(code), SqlErrorKind::Row, "{code}");
        }
        for code in [
            "42P01", "42703", "42501", "28000", "28P01", "3D000", "3F000", "25006", "0A000", "23503", "P0001", "22P03",
            "22P04", "58P01",
        ] {
            assert_eq!(plain(code), SqlErrorKind::Refuse, "{code}");
        }
        for code in [
            "08006", "53100", "53200", "53300", "57P01", "57P03", "57014", "58030", "40P01", "40001", "55P03", "25P03",
            "XX000", "",
        ] {
            assert_eq!(plain(code), SqlErrorKind::Retry, "{code}");
        }
        let unique = |constraint, schema| {
            SqlErrorKind::of_sqlstate(
                "23505",
                SqlErrorContext { constraint: Some(constraint), schema: Some(schema), column: None },
            )
        };
        let not_null = |column| {
            SqlErrorKind::of_sqlstate("23502", SqlErrorContext { column: Some(column), ..SqlErrorContext::default() })
        };
        assert_eq!(not_null("valid"), SqlErrorKind::Row);
        assert_eq!(not_null("a_column_that_the_operator_added"), SqlErrorKind::Refuse);
        assert_eq!(unique("positions_pkey", "public"), SqlErrorKind::Stored);
        assert_eq!(unique("12_7_positions_pkey", "_timescaledb_internal"), SqlErrorKind::Stored);
        assert_eq!(unique("chunk_schema_name_table_name_key", "_timescaledb_catalog"), SqlErrorKind::Retry);
        assert_eq!(unique("one_position_a_second", "public"), SqlErrorKind::Row);
        assert_eq!(unique("_hyper_1_1_chunk_one_position_a_second", "_timescaledb_internal"), SqlErrorKind::Row);
    }

    #[test]
    fn each_result_code_of_sqlite_has_its_kind() {
        for code in [5, 517, 6, 7, 9, 10, 778, 13] {
            assert_eq!(SqlErrorKind::of_sqlite(code), SqlErrorKind::Retry, "{code}");
        }
        for code in [18, 19, 275, 3091, 20] {
            assert_eq!(SqlErrorKind::of_sqlite(code), SqlErrorKind::Row, "{code}");
        }
        for code in [1, 8, 11, 14, 26] {
            assert_eq!(SqlErrorKind::of_sqlite(code), SqlErrorKind::Refuse, "{code}");
        }
    }
}
