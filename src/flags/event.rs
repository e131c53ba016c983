//! Parses an entry of the flag stream, or refuses it with a reason. Pure.
//!
//! Only a fault of the entry itself refuses it. Whether its device or its positions exist does not matter here.

use serde_json::Value as Json;
use teltonika_codecs::Imei;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::store::{FlagChange, FlagState, InvalidWindow, Window};

/// Why an entry cannot be read: `reason` in the dead-letter stream, and a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// `v` is not a version that this program knows.
    #[error("unknown_version")]
    UnknownVersion,
    /// A field, or a member of `old` or `new`, is missing.
    #[error("missing_field")]
    MissingField,
    /// A field is longer than any that Directus sends.
    #[error("too_large")]
    TooLarge,
    /// `seq` is not a whole number of at least 1.
    #[error("bad_seq")]
    BadSeq,
    /// `op` is not insert, update or delete.
    #[error("bad_op")]
    BadOp,
    /// `flag_id` is not a UUID.
    #[error("bad_flag_id")]
    BadFlagId,
    /// `old` or `new` is not a JSON object, or a member has the wrong type.
    #[error("bad_json")]
    BadJson,
    /// An IMEI that is not 15 digits.
    #[error("bad_imei")]
    BadImei,
    /// A bound that is not an RFC 3339 time, or is before 1970 or after 9999.
    #[error("bad_time")]
    BadTime,
    /// A window that ends before it begins.
    #[error("reversed_range")]
    ReversedRange,
    /// `seq` is later than tomorrow. No later change could replace it.
    #[error("future_seq")]
    FutureSeq,
    /// The database refuses it, and takes others.
    #[error("refused")]
    Refused,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 12] = [
        Self::UnknownVersion,
        Self::MissingField,
        Self::TooLarge,
        Self::BadSeq,
        Self::BadOp,
        Self::BadFlagId,
        Self::BadJson,
        Self::BadImei,
        Self::BadTime,
        Self::ReversedRange,
        Self::FutureSeq,
        Self::Refused,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownVersion => "unknown_version",
            Self::MissingField => "missing_field",
            Self::TooLarge => "too_large",
            Self::BadSeq => "bad_seq",
            Self::BadOp => "bad_op",
            Self::BadFlagId => "bad_flag_id",
            Self::BadJson => "bad_json",
            Self::BadImei => "bad_imei",
            Self::BadTime => "bad_time",
            Self::ReversedRange => "reversed_range",
            Self::FutureSeq => "future_seq",
            Self::Refused => "refused",
        }
    }
}

/// Parses the fields of an entry. If a field occurs twice, the first one counts.
///
/// # Errors
/// The first fault, in the order version, seq, op, flag, new, old.
pub fn parse<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Result<FlagChange, Fault> {
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key.as_ref() == name.as_bytes()).map(|(_, value)| value.as_ref());
        match found {
            Some(value) if value.len() > FIELD_MAX => Err(Fault::TooLarge),
            Some(value) => Ok(Some(std::str::from_utf8(value).map_err(|_| Fault::BadJson)?)),
            None => Ok(None),
        }
    };
    let needed = |name| field(name)?.ok_or(Fault::MissingField);
    if needed("v")? != VERSION {
        return Err(Fault::UnknownVersion);
    }
    let seq = needed("seq")?.parse().ok().filter(|seq| *seq >= 1).ok_or(Fault::BadSeq)?;
    let op = needed("op")?;
    let flag = Uuid::try_parse(needed("flag_id")?).map_err(|_| Fault::BadFlagId)?;
    let state = match op {
        "insert" | "update" => {
            let new = object(field("new")?)?.ok_or(Fault::MissingField)?;
            let faulty = new.get("faulty").ok_or(Fault::MissingField)?.as_bool().ok_or(Fault::BadJson)?;
            FlagState::Set { window: window(&new)?, faulty, reason: reason(&new)? }
        }
        "delete" => FlagState::Deleted,
        _ => return Err(Fault::BadOp),
    };
    let old = object(field("old")?)?.map(|old| window(&old)).transpose()?;
    Ok(FlagChange { flag, seq, old, state })
}

/// Refuses a change whose `seq` is more than a day later than `now_us`. A `seq` is the microsecond since 1970 in which the flag
/// changed, so that a later change always has a larger one. Smaller numbers, which people send by hand, are fine.
///
/// # Errors
/// [`Fault::FutureSeq`].
pub(super) fn replaceable(change: FlagChange, now_us: i64) -> Result<FlagChange, Fault> {
    if change.seq > now_us.saturating_add(DAY_US) { Err(Fault::FutureSeq) } else { Ok(change) }
}

type Object = serde_json::Map<String, Json>;

/// `None` for a field that is empty or missing.
fn object(text: Option<&str>) -> Result<Option<Object>, Fault> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => serde_json::from_str(text).map(Some).map_err(|_| Fault::BadJson),
    }
}

fn window(object: &Object) -> Result<Window, Fault> {
    let text = |name: &str, fault| match object.get(name) {
        None | Some(Json::Null) => Err(Fault::MissingField),
        Some(value) => value.as_str().ok_or(fault),
    };
    let imei = Imei::from_ascii(text("imei", Fault::BadImei)?.as_bytes()).map_err(|_| Fault::BadImei)?;
    let from = instant(text("ts_from", Fault::BadTime)?)?;
    let to = instant(text("ts_to", Fault::BadTime)?)?;
    Window::new(imei, from, to).map_err(|error| match error {
        InvalidWindow::Reversed => Fault::ReversedRange,
        InvalidWindow::OutOfRange => Fault::BadTime,
    })
}

/// Milliseconds since 1970. Positions have no finer time, so both ends are cut to the millisecond.
fn instant(text: &str) -> Result<i64, Fault> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| Fault::BadTime)?;
    i64::try_from(instant.unix_timestamp_nanos().div_euclid(1_000_000)).map_err(|_| Fault::BadTime)
}

/// The reason, shortened to [`REASON_MAX`] and without NUL, the one character that PostgreSQL's text cannot hold.
fn reason(object: &Object) -> Result<Option<String>, Fault> {
    match object.get("reason") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.chars().filter(|c| *c != '\0').take(REASON_MAX).collect())),
        Some(_) => Err(Fault::BadJson),
    }
}

const VERSION: &str = "1";
/// Maximum bytes of one field. Directus sends a few hundred.
const FIELD_MAX: usize = 64 << 10;
/// Maximum characters of a reason.
const REASON_MAX: usize = 1_000;

const DAY_US: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_no_later_one_could_replace_is_refused() {
        let change = |seq| FlagChange { flag: Uuid::from_u128(1), seq, old: None, state: FlagState::Deleted };
        let now = 1_780_000_000_000_000;
        for seq in [1, now, now + DAY_US] {
            assert_eq!(replaceable(change(seq), now).map(|change| change.seq), Ok(seq));
        }
        for seq in [now + DAY_US + 1, i64::MAX] {
            assert_eq!(replaceable(change(seq), now), Err(Fault::FutureSeq));
        }
    }

    const FLAG: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";
    const NEW: &str = r#"{"imei":"356307042441013","ts_from":"2026-05-02T07:41:00.000Z","ts_to":"2026-05-02T07:41:30.000Z",
        "faulty":true,"reason":"tunnel","user":"1b"}"#;

    fn entry<'a>(change: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, &'a str)> {
        let mut fields = vec![("v", "1"), ("seq", "7"), ("op", "update"), ("flag_id", FLAG), ("old", ""), ("new", NEW)];
        for (name, value) in change {
            fields.retain(|(field, _)| field != name);
            fields.extend(value.map(|value| (*name, value)));
        }
        fields
    }

    fn fault(change: &[(&str, Option<&str>)]) -> Fault {
        parse(&entry(change)).unwrap_err()
    }

    #[test]
    fn an_entry_says_what_a_flag_is_and_was() {
        let window = |from, to| Window::new("356307042441013".parse().unwrap(), from, to).unwrap();
        let old =
            r#"{"imei":"356307042441013","ts_from":"1970-01-01T00:00:00Z","ts_to":"1970-01-01T02:00:00.0019+02:00"}"#;
        let change = parse(&entry(&[("old", Some(old))])).unwrap();
        let bounds = window(1_777_707_660_000, 1_777_707_690_000);
        let state = FlagState::Set { window: bounds, faulty: true, reason: Some("tunnel".into()) };
        let expected = FlagChange { flag: FLAG.parse().unwrap(), seq: 7, old: Some(window(0, 1)), state };
        assert_eq!(change, expected);
        let deleted = parse(&entry(&[("op", Some("delete")), ("new", Some("")), ("old", Some(NEW))])).unwrap();
        assert_eq!(deleted, FlagChange { old: Some(bounds), state: FlagState::Deleted, ..expected });
        let bare = parse(&entry(&[("op", Some("delete")), ("new", None), ("old", None)])).unwrap();
        assert_eq!((bare.old, bare.state), (None, FlagState::Deleted));
    }

    #[test]
    fn each_fault_has_its_reason() {
        for name in ["v", "seq", "op", "flag_id", "new"] {
            assert_eq!(fault(&[(name, None)]), Fault::MissingField, "{name}");
        }
        assert_eq!(fault(&[("new", Some(""))]), Fault::MissingField);
        assert_eq!(fault(&[("v", Some("2"))]), Fault::UnknownVersion);
        for seq in ["", "0", "-1", "1.5", "9223372036854775808", "x"] {
            assert_eq!(fault(&[("seq", Some(seq))]), Fault::BadSeq, "{seq}");
        }
        assert_eq!(fault(&[("op", Some("upsert"))]), Fault::BadOp);
        assert_eq!(fault(&[("flag_id", Some("7"))]), Fault::BadFlagId);
        let long = "x".repeat(FIELD_MAX + 1);
        assert_eq!(fault(&[("old", Some(&long))]), Fault::TooLarge);
        for (from, to, expected) in [
            ("356307042441013", "35630704244101", Fault::BadImei),
            (r#""356307042441013""#, "356307042441013", Fault::BadImei),
            ("356307042441013", "35630704244101٣", Fault::BadImei),
            ("2026-05-02T07:41:00.000Z", "2026-05-02T07:41:31.000Z", Fault::ReversedRange),
            ("2026-05-02T07:41:00.000Z", "yesterday", Fault::BadTime),
            ("2026-05-02T07:41:00.000Z", "1969-12-31T23:59:59.999Z", Fault::BadTime),
            (r#""faulty":true"#, r#""faulty":"true""#, Fault::BadJson),
            (r#""faulty":true,"#, "", Fault::MissingField),
            (r#""tunnel""#, "7", Fault::BadJson),
            ("{", "[", Fault::BadJson),
            (r#""ts_to""#, r#""to""#, Fault::MissingField),
        ] {
            let new = NEW.replace(from, to);
            assert_eq!(fault(&[("new", Some(&new))]), expected, "{new}");
        }
        assert_eq!(fault(&[("old", Some("null"))]), Fault::BadJson);
        assert!(Fault::ALL.iter().all(|fault| fault.to_string() == fault.as_str()));
    }

    #[test]
    fn a_reason_is_cut_to_what_databases_take() {
        let new = NEW.replace("tunnel", &format!("a\\u0000b{}", "ü".repeat(REASON_MAX)));
        let FlagState::Set { reason: Some(reason), .. } = parse(&entry(&[("new", Some(&new))])).unwrap().state else {
            panic!("no reason")
        };
        assert_eq!(reason.chars().count(), REASON_MAX);
        assert!(reason.starts_with("abü"));
    }
}
