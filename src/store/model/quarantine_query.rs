//! The conditions of a query on `quarantined_records`, which both databases share apart from three literals.

use std::fmt::Write as _;

use super::quarantine::{QuarantineCursor, QuarantineFilter};

/// In which order records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuarantineOrder {
    OldestFirst,
    NewestFirst,
}

/// The literals that the databases write differently.
pub(crate) struct QuarantineDialect {
    /// The digest as hexadecimal digits in lower case.
    pub(crate) digest_hex: &'static str,
    /// A time, from microseconds.
    pub(crate) time: fn(i64) -> String,
    /// Bytes, from hexadecimal digits.
    pub(crate) bytes: fn(&str) -> String,
}

/// The `WHERE` clause. Only numbers, the words of an enum and hexadecimal digits become part of its text.
pub(crate) fn conditions(
    filter: &QuarantineFilter,
    after: Option<QuarantineCursor>,
    dialect: &QuarantineDialect,
) -> String {
    let QuarantineFilter { reason, imei, from_us, to_us, digest } = filter;
    let mut text = " WHERE true".to_owned();
    let mut and = |condition: String| {
        // Writing to a string does not fail.
        let _ = write!(text, " AND {condition}");
    };
    if let Some(reason) = reason {
        and(format!("reason = '{}'", reason.as_str()));
    }
    if let Some(imei) = imei {
        and(format!("imei = {}", imei.get()));
    }
    if let Some(from) = from_us {
        and(format!("received_at >= {}", (dialect.time)(*from)));
    }
    if let Some(to) = to_us {
        and(format!("received_at < {}", (dialect.time)(*to)));
    }
    if let Some(digits) = digest {
        let digits: String = digits.chars().filter(char::is_ascii_hexdigit).collect();
        and(format!("{} LIKE '{}%'", dialect.digest_hex, digits.to_ascii_lowercase()));
    }
    if let Some((received_at_us, imei, digest)) = after {
        let hex = crate::hex::text(&digest);
        let time = (dialect.time)(received_at_us);
        and(format!("received_at >= {time}"));
        and(format!("(received_at, imei, digest) > ({time}, {}, {})", imei.get(), (dialect.bytes)(&hex)));
    }
    text
}

/// The `ORDER BY` and `LIMIT` clauses.
pub(crate) fn ordered(order: QuarantineOrder, most: u32) -> String {
    let direction = match order {
        QuarantineOrder::OldestFirst => "ASC",
        QuarantineOrder::NewestFirst => "DESC",
    };
    format!(" ORDER BY received_at {direction}, imei {direction}, digest {direction} LIMIT {most}")
}
